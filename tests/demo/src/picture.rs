//! The picture of a recording: an SVG in which the lines of each scene appear one after the other, and then the next scene.
//!
//! Programs without animations show one scene, as do readers who prefer less motion.

use anstyle_svg::{Term, WIN10_CONSOLE};

use crate::screen::WIDTH;

/// Terminal output of one scene, with colours.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Lines with escape sequences.
    pub text: String,
}

/// The scene that is shown without animations: the wrong targetPort.
const STILL: usize = 1;

/// Seconds until the next line appears.
const LINE_TIME: f64 = 0.3;

/// Seconds for which a scene stays after its last line.
const HOLD_TIME: f64 = 8.0;

/// Height of a line, width of a column, and width of the border in pixels, as `anstyle_svg` draws them.
const LINE_HEIGHT: usize = 18;
const COLUMN_WIDTH: f64 = 8.4;
const BORDER: usize = 10;

/// Height in pixels of the parts of letters below their line.
const DESCENT: usize = 5;

/// The colour of the background.
const BACKGROUND: &str = "#0c0c0c";

/// Draws the scenes.
pub fn render(scenes: &[Scene]) -> String {
    let rows = scenes.iter().map(Scene::rows).max().unwrap_or_default();
    let (width, height) = (text_width() + 2 * BORDER, rows * LINE_HEIGHT + 2 * BORDER);
    let total = scenes.iter().map(Scene::duration).sum();
    let style = style(total);
    let starts = scenes.iter().scan(0.0, |end, scene| {
        *end += scene.duration();
        Some(*end - scene.duration())
    });
    let keyframes: String =
        starts.zip(scenes).enumerate().map(|(index, (start, scene))| scene.keyframes(index, start, total)).collect();
    let drawn: String = scenes.iter().enumerate().map(|(index, scene)| scene.draw(index)).collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>Steps of cargo xtask demo in a terminal</title>\n\
         <style>\n{style}{keyframes}</style>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n\
         {drawn}</svg>\n"
    )
}

impl Scene {
    fn rows(&self) -> usize {
        self.text.lines().count()
    }

    /// Seconds from the first line of this scene to that of the next one.
    fn duration(&self) -> f64 {
        seconds_of(self.rows()) + HOLD_TIME
    }

    /// The times of the scene and of its cover, which moves down and uncovers the lines. `start` and `total` are in seconds.
    fn keyframes(&self, index: usize, start: f64, total: f64) -> String {
        let percent = |time: f64| format!("{:.2}%", time * 100.0 / total);
        let rows = self.rows();
        let (from, shown, to) = (percent(start), percent(start + seconds_of(rows)), percent(start + self.duration()));
        let bottom = rows * LINE_HEIGHT;
        format!(
            "@keyframes scene-{index} {{ 0%, 100% {{ visibility: hidden }} {from} {{ visibility: visible }} {to} {{ visibility: hidden }} }}\n\
             @keyframes cover-{index} {{ 0%, {from} {{ transform: none; animation-timing-function: steps({rows}) }} \
             {shown}, 100% {{ transform: translateY({bottom}px) }} }}\n"
        )
    }

    fn draw(&self, index: usize) -> String {
        let term = Term::new().palette(WIN10_CONSOLE).background(false).min_width_px(text_width());
        let text = term.render_svg(&self.text);
        let class = if index == STILL { "scene still" } else { "scene" };
        let (top, width, height) = (BORDER + DESCENT, text_width() + 2 * BORDER - 2, self.rows() * LINE_HEIGHT);
        format!(
            "<g class=\"{class}\" style=\"animation-name: scene-{index}\">\n{text}\
             <svg x=\"1\" y=\"{top}\" width=\"{width}\" height=\"{height}\">\
             <rect class=\"cover\" style=\"animation-name: cover-{index}\" width=\"100%\" height=\"100%\"/></svg>\n</g>\n"
        )
    }
}

/// The rules that all scenes share. The colours are brighter than those of the palette.
fn style(total: f64) -> String {
    format!(
        ".scene, .cover {{ visibility: hidden }}\n.still {{ visibility: visible }}\n.cover {{ fill: {BACKGROUND} }}\n\
         tspan.dimmed {{ opacity: 1; fill-opacity: 0.6 }}\n\
         tspan.fg-red {{ fill: #f14c4c }}\ntspan.fg-green {{ fill: #23d18b }}\ntspan.fg-cyan {{ fill: #29b8db }}\n\
         @media (prefers-reduced-motion: no-preference) {{\n\
         .scene, .cover {{ animation-duration: {total:.1}s; animation-iteration-count: infinite }}\n\
         .scene {{ animation-timing-function: step-end; visibility: hidden }}\n.cover {{ visibility: inherit }}\n}}\n"
    )
}

#[expect(clippy::cast_precision_loss, reason = "numbers of rows are small")]
fn seconds_of(rows: usize) -> f64 {
    rows as f64 * LINE_TIME
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small positive number"
)]
fn text_width() -> usize {
    (WIDTH as f64 * COLUMN_WIDTH).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scene_is_drawn_with_its_lines() {
        let scene = |text: &str| Scene { text: text.to_owned() };
        let svg = render(&[scene("one\n<two>"), scene("\x1b[32mthree\x1b[0m")]);
        for part in ["one", "&lt;two", "three", "scene-1", "prefers-reduced-motion", "height=\"56\""] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
        assert_eq!((svg.matches("class=\"scene\"").count(), svg.matches("class=\"scene still\"").count()), (1, 1));
        assert!(!svg.contains('\x1b'));
    }
}
