//! `cargo xtask plot`: the README's figure, from what `floodtide demo --json` printed.

use crate::bench::load::Role;
use serde_json::Value;
use std::fmt::Write;
use std::path::PathBuf;

/// One bar: a way to load, and its rate.
pub(crate) struct Bar {
    pub(crate) way: String,
    pub(crate) gib_per_second: f64,
    pub(crate) role: Role,
}

pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

/// Draws one panel for each `TITLE=FILE` and writes the figure to `out`.
pub(crate) fn plot(inputs: &[String], out: &PathBuf) -> Result<(), String> {
    let panels = inputs.iter().map(|input| panel(input)).collect::<Result<Vec<_>, _>>()?;
    std::fs::write(out, draw(&panels)).map_err(|error| format!("{}: {error}", out.display()))
}

fn panel(input: &str) -> Result<Panel, String> {
    let (title, path) = input.split_once('=').ok_or_else(|| format!("\"{input}\" is not TITLE=FILE"))?;
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let document: Value = serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))?;
    let ways = document["ways"].as_array().ok_or_else(|| format!("{path}: has no \"ways\""))?;
    let bars = ways.iter().map(bar).collect::<Option<Vec<_>>>();
    let mut bars = bars.ok_or_else(|| format!("{path}: a way lacks its name or its rate"))?;
    bars.sort_by(|a, b| b.gib_per_second.total_cmp(&a.gib_per_second));
    Ok(Panel { title: title.to_owned(), bars })
}

fn bar(way: &Value) -> Option<Bar> {
    let name = way["way"].as_str()?;
    let role = match name {
        "auto" => Role::Auto,
        "std::fs::read" => Role::Plain,
        _ => Role::Fixed,
    };
    Some(Bar { way: name.to_owned(), gib_per_second: way["gib_per_second"].as_f64()?, role })
}

const ROW: f64 = 22.0;
const LENGTH: f64 = 420.0;

/// Horizontal bars, each panel on the scale of the fastest of all. The colours can be read on light and dark pages.
pub(crate) fn draw(panels: &[Panel]) -> String {
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

    #[test]
    fn what_is_no_result_is_refused() {
        assert!(panel("no title").is_err());
        assert!(panel("title=/nonexistent").is_err());
    }
}
