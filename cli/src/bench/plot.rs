//! Draws the figure of a bench: a bar for each way to load, and the roofline across them. It is
//! plain SVG with its own background, light or dark like the page around it.

use super::rounds::Results;
use super::show::headline;
use super::subject::Subject;
use floodtide::core::Quoted;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 20.0;
const LABELS: f64 = 118.0;
/// Room for the rate, right of the longest bar.
const RATES: f64 = 84.0;
const ROW: f64 = 27.0;
const BAR: f64 = 16.0;
/// Longer names and models are cut: text in an SVG does not wrap.
const LINE: usize = 105;

const STYLE: &str = "\
.ground{fill:#fff;stroke:#d8dde3}.text{fill:#1f2328}.quiet{fill:#59636e}.grid{stroke:#e4e8ec}\
.auto{fill:#0969a2}.ours{fill:#6fb0d2}.plain{fill:#b9825e}.whisker{stroke:#1f2328}.roof{stroke:#c2410c}.rooftext{fill:#c2410c}\
@media (prefers-color-scheme:dark){\
.ground{fill:#0d1117;stroke:#30363d}.text{fill:#e6edf3}.quiet{fill:#9198a1}.grid{stroke:#262c36}\
.auto{fill:#4aa8dd}.ours{fill:#2b6c91}.plain{fill:#8f5f40}.whisker{stroke:#e6edf3}.roof{stroke:#f0883e}.rooftext{fill:#f0883e}}";

/// One bar.
struct Bar<'a> {
    name: &'a str,
    class: &'static str,
    /// The lowest, the median and the highest rate.
    rates: [f64; 3],
}

pub(super) fn draw(results: &Results) -> String {
    let bytes = results.checkpoint.bytes;
    let bars = results.subjects.iter().filter_map(|row| {
        let class = match row.what {
            Subject::Auto => "auto",
            subject if subject.is_ours() => "ours",
            _ => "plain",
        };
        Some(Bar { name: row.what.name(), class, rates: row.result.as_ref().ok()?.rates(bytes) })
    });
    let mut bars: Vec<Bar<'_>> = bars.collect();
    bars.sort_by(|a, b| b.rates[1].total_cmp(&a.rates[1]));
    let machine = &results.machine;
    let name = results.checkpoint.path.file_name().unwrap_or(results.checkpoint.path.as_os_str()).to_string_lossy();
    let runs = crate::output::count(results.runs, "run");
    let titles = [
        format!("{}: {}", Quoted(&name), headline(results)),
        format!("{}; {}; Linux {}", machine.storage(), machine.processor(), machine.kernel),
        format!("Median of {runs} each, in shuffled order; whiskers from the lowest to the highest. Higher is better."),
    ];
    let roof = results.limit().zip(results.best()).map(|(limit, (pattern, _))| (limit, pattern.describe()));
    figure(&titles, &bars, roof.as_ref())
}

fn figure(titles: &[String], bars: &[Bar<'_>], roof: Option<&(f64, String)>) -> String {
    let most = bars.iter().map(|bar| bar.rates[2]).chain(roof.map(|(rate, _)| *rate)).fold(f64::MIN_POSITIVE, f64::max);
    let left = MARGIN + LABELS;
    let length = WIDTH - left - RATES - MARGIN;
    let x = |rate: f64| left + rate / most * length;
    let mut body = String::new();
    let mut y = MARGIN;
    for (i, title) in titles.iter().enumerate() {
        y += 19.0;
        let style = if i == 0 { "class=\"text\" font-size=\"15\" font-weight=\"600\"" } else { "class=\"quiet\"" };
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(body, "<text x=\"{MARGIN}\" y=\"{y:.0}\" {style}>{}</text>", escape(&cut(title)));
    }
    y += 14.0;
    if let Some((rate, how)) = roof {
        y += 16.0;
        let label = cut(&format!("roofline {} GiB/s: {how}, discarded", round(*rate)));
        let end = x(*rate).max(left + 380.0);
        let _ = writeln!(
            body,
            "<text x=\"{end:.1}\" y=\"{y:.0}\" text-anchor=\"end\" class=\"rooftext\">{}</text>",
            escape(&label)
        );
    }
    let top = y + 6.0;
    let bottom = top + ROW * bars.len() as f64 + 4.0;
    for tick in ticks(most) {
        let at = x(tick);
        let _ = writeln!(body, "<path d=\"M{at:.1} {top:.0}V{bottom:.0}\" class=\"grid\"/>");
        let below = bottom + 16.0;
        let _ =
            writeln!(body, "<text x=\"{at:.1}\" y=\"{below:.0}\" text-anchor=\"middle\" class=\"quiet\">{tick}</text>");
    }
    let _ = writeln!(
        body,
        "<text x=\"{:.0}\" y=\"{:.0}\" class=\"quiet\">GiB/s</text>",
        WIDTH - MARGIN - 40.0,
        bottom + 16.0
    );
    for (i, Bar { name, class, rates: [least, rate, most] }) in bars.iter().enumerate() {
        let middle = top + ROW * i as f64 + ROW / 2.0 + 2.0;
        let base = middle + 4.5;
        let _ = writeln!(
            body,
            "<text x=\"{:.0}\" y=\"{base:.1}\" text-anchor=\"end\" class=\"text\">{}</text>",
            left - 9.0,
            escape(name)
        );
        let (width, above) = (x(*rate) - left, middle - BAR / 2.0);
        let _ = writeln!(
            body,
            "<rect x=\"{left}\" y=\"{above:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\" class=\"{class}\"/>"
        );
        let (from, to) = (x(*least), x(*most));
        let (high, low) = (middle - 4.0, middle + 4.0);
        let _ = writeln!(
            body,
            "<path d=\"M{from:.1} {high:.1}V{low:.1}M{from:.1} {middle:.1}H{to:.1}M{to:.1} {high:.1}V{low:.1}\" \
             class=\"whisker\"/>"
        );
        let _ = writeln!(
            body,
            "<text x=\"{:.1}\" y=\"{base:.1}\" class=\"text\" font-weight=\"600\">{} GiB/s</text>",
            // A label must not overlap the roofline.
            roof.map_or(to, |(roof, _)| if (to - 4.0..to + 72.0).contains(&x(*roof)) { x(*roof) } else { to }) + 8.0,
            round(*rate)
        );
    }
    if let Some((rate, _)) = roof {
        let at = x(*rate);
        let _ = writeln!(
            body,
            "<path d=\"M{at:.1} {top:.0}V{bottom:.0}\" class=\"roof\" stroke-width=\"2\" stroke-dasharray=\"6 4\"/>"
        );
    }
    let height = bottom + 16.0 + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" width=\"{WIDTH:.0}\" \
         height=\"{height:.0}\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n<style>{STYLE}</style>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{:.0}\" height=\"{:.0}\" rx=\"6\" class=\"ground\"/>\n{body}</svg>\n",
        WIDTH - 1.0,
        height - 1.0
    )
}

/// Returns three to seven ticks of the axis, at 1, 2 or 5 times a power of ten.
fn ticks(most: f64) -> Vec<f64> {
    let power = 10.0_f64.powf((most / 7.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| most / step <= 7.0);
    let step = step.unwrap_or(most);
    (0..=7).map(|i| (f64::from(i) * step * 1e9).round() / 1e9).filter(|tick| *tick <= most).collect()
}

/// Formats a rate with two or three significant digits.
fn round(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.2}") } else { format!("{rate:.1}") }
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// Escapes text for an SVG, without the characters that XML does not allow.
fn escape(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_has_the_full_length_and_names_are_escaped() {
        let bar = |name, rate: f64| Bar { name, class: "ours", rates: [rate / 2.0, rate, rate] };
        let roof = (8.0, "direct & fast".to_owned());
        let svg = figure(&["a < b\u{1b}".to_owned()], &[bar("auto", 8.0), bar("\"x\"", 2.0)], Some(&roof));
        let full = WIDTH - 2.0 * MARGIN - LABELS - RATES;
        assert!(
            svg.contains(&format!("width=\"{full:.1}\"")) && svg.contains(&format!("width=\"{:.1}\"", full / 4.0)),
            "{svg}"
        );
        assert!(
            svg.contains("a &lt; b<") && svg.contains("direct &amp; fast") && svg.contains("&quot;x&quot;"),
            "{svg}"
        );
        assert!(svg.contains("8.00 GiB/s") && svg.contains("prefers-color-scheme:dark"), "{svg}");
    }

    #[test]
    fn an_axis_has_few_round_marks() {
        assert_eq!(ticks(3.4), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]);
        assert_eq!(ticks(10.7), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        for most in [0.013, 0.7, 1.0, 6.9, 99.0, 12_345.0] {
            let ticks = ticks(most);
            assert!((3..=8).contains(&ticks.len()) && ticks.iter().all(|tick| *tick <= most), "{most}: {ticks:?}");
        }
    }

    #[test]
    fn nothing_measured_is_still_a_figure() {
        let svg = figure(&[], &[], None);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
    }
}
