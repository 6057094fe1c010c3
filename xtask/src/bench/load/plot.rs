//! Bars of several measurements, as a figure for the results.

use super::Role;
use std::fmt::Write;

/// One bar: a way to load, and its rate.
pub(super) struct Bar {
    pub(super) way: String,
    pub(super) gib_per_second: f64,
    pub(super) role: Role,
}

pub(super) struct Panel {
    pub(super) title: String,
    pub(super) bars: Vec<Bar>,
}

const ROW: f64 = 22.0;
const LENGTH: f64 = 420.0;

/// Horizontal bars, each panel on the scale of the fastest of all. The colours can be read on light and dark pages.
pub(super) fn draw(panels: &[Panel]) -> String {
    let all = || panels.iter().flat_map(|panel| &panel.bars);
    // The names' column, by the width of a letter.
    let labels = (all().map(|bar| bar.way.chars().count()).max().unwrap_or(0) as f64 * 7.0).max(102.0) + 8.0;
    let fastest = all().map(|bar| bar.gib_per_second).fold(f64::MIN_POSITIVE, f64::max);
    let (mut body, mut y) = (String::new(), 10.0);
    let line = |x: f64, y: f64, style: &str, text: &str| {
        format!("<text x=\"{x:.0}\" y=\"{y:.0}\" {style}>{}</text>\n", escape(text))
    };
    for panel in panels {
        y += ROW;
        body += &line(0.0, y, "font-weight=\"bold\"", &panel.title);
        for bar in &panel.bars {
            y += ROW;
            let width = bar.gib_per_second / fastest * LENGTH;
            let colour = match bar.role {
                Role::Auto => "#0a7ea4",
                Role::Fixed | Role::Other => "#7fb2c4",
                Role::PeerOwned | Role::PeerMapped => "#c08a3e",
                Role::Plain => "#b0553a",
                Role::Roofline => "#8a8a8a",
            };
            body += &line(labels - 8.0, y, "text-anchor=\"end\"", &bar.way);
            // Writing to a string cannot fail.
            let _ = writeln!(
                body,
                "<rect x=\"{labels:.0}\" y=\"{:.0}\" width=\"{width:.1}\" height=\"15\" fill=\"{colour}\"/>",
                y - 12.0
            );
            body += &line(labels + width + 6.0, y, "", &format!("{:.1} GiB/s", bar.gib_per_second));
        }
        y += ROW / 2.0;
    }
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
        let bar = |way: &str, gib_per_second| Bar { way: way.to_owned(), gib_per_second, role: Role::Fixed };
        let svg = draw(&[Panel { title: "a < b".to_owned(), bars: vec![bar("auto", 8.0), bar("std::fs::read", 2.0)] }]);
        assert!(svg.contains("width=\"420.0\"") && svg.contains("width=\"105.0\""), "{svg}");
        assert!(svg.contains("a &lt; b"), "{svg}");
    }
}
