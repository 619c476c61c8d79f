//! The screen of `portmap top`.

use portmap::inspect::top::{Order, Row, Share};
use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::Line,
    widgets::{self, Paragraph, Table},
};

/// The most backends that are shown of a Service port.
const SHOWN: usize = 6;

/// The width of a bar for all connections, in eighths of a character.
const BAR: f64 = 80.0;

/// What the screen shows.
pub struct View<'a> {
    pub rows: &'a [Row],
    pub order: Order,
    /// The reason why backends or their pods are not shown.
    pub note: Option<&'a str>,
}

/// Draws the screen.
pub fn draw(frame: &mut Frame<'_>, view: &View<'_>) {
    let areas: [_; 3] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(summary(view)), areas[0]);
    let header = widgets::Row::new(["SERVICE", "PORT", "NEW/S", "REFUSED/S", "DROPPED/S"])
        .style(Style::new().add_modifier(Modifier::REVERSED));
    let widths =
        [Constraint::Min(30), Constraint::Length(12), Constraint::Length(9), Constraint::Length(9), Constraint::Length(9)];
    // Each row is a line at least, so no more rows than lines are visible.
    let visible = view.rows.iter().take(areas[1].height.into()).flat_map(lines);
    frame.render_widget(Table::new(visible, widths).header(header), areas[1]);
    let keys = "q quit   sort by: c connections, f failures, n name   z count the backends anew";
    frame.render_widget(Paragraph::new(keys).style(Style::new().add_modifier(Modifier::DIM)), areas[2]);
}

fn summary(view: &View<'_>) -> Vec<Line<'static>> {
    // The sum of no numbers would be shown as -0.0.
    let sum = |rate: fn(&Row) -> f64| view.rows.iter().map(rate).fold(0.0, |sum: f64, rate| sum + rate);
    let (forwarded, failed) = (sum(|row| row.forwarded_per_second), sum(Row::failures));
    let order = match view.order {
        Order::Connections => "connections",
        Order::Failures => "failures",
        Order::Name => "name",
    };
    let totals = format!(
        "portmap top: {} Service ports, {forwarded:.1} new connections/s, {failed:.1} failed/s, sorted by {order}",
        view.rows.len()
    );
    vec![Line::raw(totals), Line::raw(view.note.unwrap_or_default().to_owned())]
}

/// The line of a Service port, and a line for each of its backends.
fn lines(row: &Row) -> Vec<widgets::Row<'static>> {
    let rate = |value: f64| format!("{value:.1}");
    let style = if row.failures() > 0.0 { Style::new().fg(Color::Red) } else { Style::new() };
    let service = [
        row.service.to_string(),
        port(row),
        rate(row.forwarded_per_second),
        rate(row.refused_per_second),
        rate(row.dropped_per_second),
    ];
    let mut lines = vec![widgets::Row::new(service).style(style)];
    lines.extend(row.backends.iter().take(SHOWN).map(backend));
    if let Some(more) = row.backends.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        lines.push(widgets::Row::new([format!("  and {more} more backends")]));
    }
    lines
}

fn backend(share: &Share) -> widgets::Row<'static> {
    let text = format!("  {:>3.0} % {:<10} {}", share.share * 100.0, bar(share.share), share.text());
    widgets::Row::new([text]).style(Style::new().fg(Color::Green))
}

/// The protocol and the name of a Service port.
pub fn port(row: &Row) -> String {
    if row.port.is_empty() { row.protocol.to_owned() } else { format!("{}/{}", row.port, row.protocol) }
}

/// A bar in eighths of a character.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is between 0 and 1")]
fn bar(share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * BAR).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

#[cfg(test)]
mod tests {
    use portmap::model::ObjectName;
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn row(service: &str, forwarded: f64, refused: f64, backends: Vec<Share>) -> Row {
        Row {
            service: ObjectName::new("shop", service),
            port: "http".into(),
            protocol: "TCP",
            forwarded_per_second: forwarded,
            refused_per_second: refused,
            dropped_per_second: 0.0,
            backends,
        }
    }

    fn share(last: u8, pod: Option<&str>, share: f64) -> Share {
        let pod = pod.map(|pod| ObjectName::new("shop", pod));
        Share { backend: ([10, 244, 0, last], 8080).into(), pod, connections: 1, share }
    }

    #[test]
    fn the_screen_has_services_and_backends() -> Result<(), Box<dyn std::error::Error>> {
        let backends = vec![share(2, Some("web-1"), 0.75), share(3, None, 0.25)];
        let rows = [row("web", 12.5, 0.0, backends), row("cart", 0.0, 2.0, Vec::new())];
        let mut terminal = Terminal::new(TestBackend::new(90, 8))?;
        let view = View { rows: &rows, order: Order::Connections, note: None };
        terminal.draw(|frame| draw(frame, &view))?;
        let screen = terminal.backend().to_string();
        let lines: Vec<String> =
            screen.lines().map(|line| line.trim_matches('"').split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "portmap top: 2 Service ports, 12.5 new connections/s, 2.0 failed/s, sorted by connections",
                "",
                "SERVICE PORT NEW/S REFUSED/S DROPPED/S",
                "shop/web http/TCP 12.5 0.0 0.0",
                "75 % ███████▌ p/shop/web-1:8080",
                "25 % ██▌ 10.244.0.3:8080",
                "shop/cart http/TCP 0.0 2.0 0.0",
                "q quit sort by: c connections, f failures, n name z count the backends anew",
            ]
        );
        Ok(())
    }

    #[test]
    fn bars_have_eighths() {
        assert_eq!([0.0, 0.5, 1.0].map(bar), [String::new(), "█".repeat(5), "█".repeat(10)]);
        assert_eq!(bar(1.0 / 80.0), "▏");
        assert_eq!(bar(0.52), format!("{}▎", "█".repeat(5)));
    }
}
