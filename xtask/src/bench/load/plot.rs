//! Draws the figures of the results.

use super::Role;
use std::fmt::Write;

/// One bar: a loader and its rates in GiB/s: least, median, most.
pub(super) struct Bar {
    pub(super) subject: String,
    pub(super) rates: [f64; 3],
    pub(super) role: Role,
}

pub(super) struct Panel {
    pub(super) title: String,
    pub(super) bars: Vec<Bar>,
}

const ROW: f64 = 22.0;
const LENGTH: f64 = 420.0;

/// Draws a bar per median, with a line from least to most. All panels share one scale. A dashed
/// line marks the roofline of a panel; the bottom line names the machine. The colours are readable
/// on light and dark pages.
pub(super) fn draw(panels: &[Panel], machine: &str) -> String {
    let all = || panels.iter().flat_map(|panel| &panel.bars);
    // The width of the names' column, from the width of a letter.
    let labels = (all().map(|bar| bar.subject.chars().count()).max().unwrap_or(0) as f64 * 7.0).max(102.0) + 8.0;
    let fastest = all().map(|bar| bar.rates[2]).fold(f64::MIN_POSITIVE, f64::max);
    let (mut body, mut y) = (String::new(), 10.0);
    let line = |x: f64, y: f64, style: &str, text: &str| {
        format!("<text x=\"{x:.0}\" y=\"{y:.0}\" {style}>{}</text>\n", escape(text))
    };
    for panel in panels {
        y += ROW;
        let top = y + ROW / 2.0 - 3.0;
        body += &line(8.0, y, "font-weight=\"bold\"", &panel.title);
        for bar in &panel.bars {
            y += ROW;
            let [least, width, most] = bar.rates.map(|rate| rate / fastest * LENGTH);
            let colour = match bar.role {
                Role::Auto => "#0a7ea4",
                Role::Fixed | Role::Other => "#7fb2c4",
                Role::BaselineOwned | Role::BaselineMapped => "#c08a3e",
                Role::Plain => "#b0553a",
                Role::Roofline => "#8a8a8a",
            };
            body += &line(labels - 8.0, y, "text-anchor=\"end\"", &bar.subject);
            // Writing to a string cannot fail.
            let _ = writeln!(
                body,
                "<rect x=\"{labels:.0}\" y=\"{:.0}\" width=\"{width:.1}\" height=\"15\" fill=\"{colour}\"/>",
                y - 12.0
            );
            let _ = writeln!(
                body,
                "<path d=\"M{:.1} {at:.0}H{:.1}M{:.1} {:.0}v6M{:.1} {:.0}v6\" stroke=\"#606060\"/>",
                labels + least,
                labels + most,
                labels + least,
                y - 7.5,
                labels + most,
                y - 7.5,
                at = y - 4.5,
            );
            body += &line(labels + LENGTH + 10.0, y, "", &format!("{:.1} GiB/s", bar.rates[1]));
        }
        let roofline = panel.bars.iter().filter(|bar| bar.role == Role::Roofline).map(|bar| bar.rates[1]);
        if let Some(rate) = roofline.max_by(f64::total_cmp) {
            let _ = writeln!(
                body,
                "<path d=\"M{:.1} {top:.0}V{:.0}\" stroke=\"#8a8a8a\" stroke-dasharray=\"4 3\"/>",
                labels + rate / fastest * LENGTH,
                y + 5.0
            );
        }
        y += ROW / 2.0;
    }
    y += ROW / 2.0;
    body += &line(8.0, y, "font-size=\"11\"", machine);
    let (width, height) = (labels + LENGTH + 90.0, y + 10.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#808080\">\n{body}</svg>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_bar_has_the_full_length() {
        let bar = |subject: &str, rate| Bar {
            subject: subject.to_owned(),
            rates: [rate / 2.0, rate, 8.0],
            role: Role::Fixed,
        };
        let bars = vec![bar("auto", 8.0), bar("std::fs::read", 2.0)];
        let svg = draw(&[Panel { title: "a < b".to_owned(), bars }], "here & now");
        assert!(svg.contains("width=\"420.0\"") && svg.contains("width=\"105.0\""), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("here &amp; now"), "{svg}");
        assert!(!svg.contains("dasharray"), "there is no roofline: {svg}");
    }
}
