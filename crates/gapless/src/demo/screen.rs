//! What the demo shows while it runs: finished lines that stay, and below them a live region that is drawn again ten times a second.

use super::paint::{self, Paint, Tone, duration, thousands};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the live region is drawn: smooth for the eye, and cheap.
const REDRAW: Duration = Duration::from_millis(100);

/// How often plain output tells the traffic, where nothing can be drawn again.
const PLAIN_TRAFFIC: Duration = Duration::from_secs(5);

/// Columns where the terminal does not tell its width.
const DEFAULT_WIDTH: usize = 100;

/// Columns below which the live region would not fit into its lines, so that it could not be drawn again.
const MIN_LIVE_WIDTH: usize = 60;

/// Columns of an act's clock.
const CLOCK: usize = 8;

/// Columns of a progress bar.
const BAR: usize = 12;

/// Columns of the bar that shows the split of the traffic.
const SPLIT_BAR: usize = 40;

/// The spinner's pictures.
const SPINNER: [&str; 8] = ["⣾", "⣽", "⣻", "⢿", "⡿", "⣟", "⣯", "⣷"];

/// How far a step is.
#[derive(Clone, Debug, PartialEq)]
pub enum StepState {
    /// Not begun.
    Waiting,
    /// In progress: so many of so many, when that is known.
    Running(Option<(u32, u32)>),
    /// Over, after so many milliseconds.
    Done(u64),
    /// Over without work, because its inputs were as before.
    Kept,
    /// It went wrong.
    Failed,
}

/// The traffic at this moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Answered requests of the last stretch, by release.
    pub split: BTreeMap<String, u64>,
    /// Requests started each second.
    pub per_second: u64,
    /// Requests since the beginning.
    pub requests: u64,
    /// Of these, how many failed.
    pub failed: u64,
    /// Requests in flight.
    pub in_flight: u64,
}

/// Everything that the live region shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The act's number and title.
    pub act: Option<(u32, String)>,
    /// The act's steps in order.
    pub steps: Vec<(String, StepState)>,
    /// The latest line of a tool.
    pub detail: String,
    /// The traffic, once there is some.
    pub traffic: Option<Traffic>,
    /// Every release seen in the traffic, in order: its place is its colour.
    pub releases: Vec<String>,
}

struct Inner {
    view: View,
    began: Instant,
    act_began: Instant,
    budget: Vec<(String, u64)>,
    drawn: usize,
    turn: usize,
    last_plain: Instant,
}

/// The screen. Clones show on the same one.
#[derive(Clone)]
pub struct Screen {
    inner: Arc<Mutex<Inner>>,
    paint: Paint,
    live: bool,
    ended: Arc<AtomicBool>,
}

/// Draws the live region until it is dropped.
pub struct Painter {
    screen: Screen,
    thread: Option<JoinHandle<()>>,
}

impl Screen {
    /// A screen on standard output: live on a terminal, plain lines elsewhere and where `NO_COLOR` is set.
    pub fn open() -> (Screen, Painter) {
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let now = Instant::now();
        let inner = Inner { view: View::default(), began: now, act_began: now, budget: Vec::new(), drawn: 0, turn: 0, last_plain: now };
        let roomy = terminal_width().is_some_and(|columns| columns >= MIN_LIVE_WIDTH);
        let live = colour && roomy && std::env::var("TERM").is_ok_and(|term| term != "dumb");
        let screen = Screen { inner: Arc::new(Mutex::new(inner)), paint: Paint { colour }, live, ended: Arc::new(AtomicBool::new(false)) };
        let thread = live.then(|| screen.clone().start());
        (screen.clone(), Painter { screen, thread })
    }

    /// How text may be shown.
    pub fn paint(&self) -> Paint {
        self.paint
    }

    /// The terminal's width in columns.
    pub fn width(&self) -> usize {
        terminal_width().unwrap_or(DEFAULT_WIDTH)
    }

    /// A new act begins; the one before is over.
    pub fn act(&self, number: u32, title: &str) {
        self.close_act();
        let mut inner = self.lock();
        inner.view.act = Some((number, title.to_owned()));
        inner.act_began = Instant::now();
        let heading = format!("\n{} {}", self.paint.text(Tone::Good, &format!("[{number}]")), self.paint.text(Tone::Strong, title));
        self.print(&mut inner, &heading);
    }

    /// The last act is over.
    pub fn close_act(&self) {
        let mut inner = self.lock();
        self.keep_steps(&mut inner);
        if let Some((number, title)) = inner.view.act.take() {
            let took = milliseconds(inner.act_began.elapsed());
            inner.budget.push((format!("{number} {title}"), took));
        }
        inner.view.detail.clear();
    }

    /// How long each act took, and all of them, in milliseconds.
    pub fn budget(&self) -> (Vec<(String, u64)>, u64) {
        let inner = self.lock();
        (inner.budget.clone(), milliseconds(inner.began.elapsed()))
    }

    /// A line that stays, inset.
    pub fn note(&self, text: &str) {
        self.line(&format!("      {text}"));
    }

    /// A line that stays, saying that something is as it should be, or is not.
    pub fn verdict(&self, holds: bool, text: &str) {
        let mark = if holds { self.paint.text(Tone::Good, "✓") } else { self.paint.text(Tone::Bad, "✗") };
        self.line(&format!("    {mark} {text}"));
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        let mut inner = self.lock();
        self.print(&mut inner, text);
    }

    /// Steps that will come, all waiting. Those before stay as a line.
    pub fn steps(&self, names: &[&str]) {
        let mut inner = self.lock();
        self.keep_steps(&mut inner);
        inner.view.steps = names.iter().map(|name| ((*name).to_owned(), StepState::Waiting)).collect();
        inner.view.detail.clear();
    }

    /// A step's new state; a step that was not announced is added.
    pub fn step(&self, name: &str, state: StepState) {
        let mut inner = self.lock();
        let told = matches!(state, StepState::Done(_) | StepState::Kept | StepState::Failed);
        if told && !self.live {
            let text = format!("      {}", step_text(name, &state, 0, self.paint));
            self.print(&mut inner, &text);
        }
        match inner.view.steps.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = state,
            None => {
                // A step that nobody announced is part of the one that runs.
                let running = inner.view.steps.iter().position(|(_, known)| matches!(known, StepState::Running(_)));
                let place = running.unwrap_or(inner.view.steps.len());
                inner.view.steps.insert(place, (name.to_owned(), state));
            }
        }
    }

    /// What was drawn as live steps stays as a line. Plain output told each step already.
    fn keep_steps(&self, inner: &mut Inner) {
        let steps = std::mem::take(&mut inner.view.steps);
        let told: Vec<String> = steps
            .iter()
            .filter(|(_, state)| *state != StepState::Waiting)
            .map(|(name, state)| step_text(name, state, 0, self.paint))
            .collect();
        if self.live && !told.is_empty() {
            let lines = packed("     ".to_owned(), told.into_iter(), self.width());
            self.print(inner, &lines.join("\n"));
        }
    }

    /// The latest line of a tool.
    pub fn detail(&self, text: &str) {
        self.lock().view.detail = text.chars().filter(|character| !character.is_control()).collect();
    }

    /// The traffic at this moment.
    pub fn traffic(&self, traffic: Traffic) {
        let mut inner = self.lock();
        for release in traffic.split.keys().filter(|release| !release.is_empty()) {
            if !inner.view.releases.contains(release) {
                inner.view.releases.push(release.clone());
            }
        }
        inner.view.traffic = Some(traffic);
        if !self.live && inner.last_plain.elapsed() >= PLAIN_TRAFFIC {
            inner.last_plain = Instant::now();
            let lines = traffic_lines(&inner.view, self.width(), self.paint);
            self.print(&mut inner, &lines.join("\n"));
        }
    }

    /// The witness has stopped: no traffic is shown any more.
    pub fn no_traffic(&self) {
        self.lock().view.traffic = None;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self) -> JoinHandle<()> {
        std::thread::spawn(move || {
            while !self.ended.load(Ordering::Relaxed) {
                self.redraw();
                std::thread::park_timeout(REDRAW);
            }
            let mut inner = self.lock();
            write_out(&erased(&mut inner));
        })
    }

    fn redraw(&self) {
        let mut inner = self.lock();
        inner.turn += 1;
        let mut text = erased(&mut inner);
        let elapsed = milliseconds(inner.act_began.elapsed());
        let frame = frame(&inner.view, elapsed, inner.turn, self.width(), self.paint);
        inner.drawn = frame.len();
        for line in frame {
            text.push_str(&line);
            text.push('\n');
        }
        write_out(&text);
    }

    fn print(&self, inner: &mut Inner, text: &str) {
        let mut whole = if self.live { erased(inner) } else { String::new() };
        whole.push_str(text);
        whole.push('\n');
        write_out(&whole);
    }
}

impl Drop for Painter {
    fn drop(&mut self) {
        self.screen.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A painter that panicked has drawn its last line; there is nothing more to undo.
            let _ = thread.join();
        }
    }
}

/// What takes the live region away.
fn erased(inner: &mut Inner) -> String {
    let lines = std::mem::take(&mut inner.drawn);
    if lines == 0 { String::new() } else { format!("\u{1b}[{lines}A\u{1b}[J") }
}

/// Writes to standard output. A reader that went away (`gapless demo | head`) must not end the demo in the middle, before it has cleaned up.
fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// The live region: the act, its steps, the latest line of a tool, the traffic.
pub fn frame(view: &View, elapsed_ms: u64, turn: usize, width: usize, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    if view.act.is_some() {
        let spinner = paint.text(Tone::Good, SPINNER[turn % SPINNER.len()]);
        let clock = paint::padded(&paint.text(Tone::Quiet, &duration(elapsed_ms)), CLOCK);
        let steps = view.steps.iter().map(|(name, state)| step_text(name, state, turn, paint));
        lines.extend(packed(format!("    {spinner} {clock}"), steps, width));
    }
    if !view.detail.is_empty() {
        lines.push(paint.text(Tone::Quiet, &paint::shortened(&format!("      {}", view.detail), width.saturating_sub(1))));
    }
    lines.extend(traffic_lines(view, width, paint));
    lines
}

/// The parts one after the other behind a beginning, in as many lines as they need.
fn packed(beginning: String, parts: impl Iterator<Item = String>, width: usize) -> Vec<String> {
    let inset = " ".repeat(paint::width(&beginning));
    let mut lines = vec![beginning];
    for part in parts {
        let fits = lines.last().is_some_and(|line| paint::width(line) + paint::width(&part) + 2 < width);
        if !fits {
            lines.push(inset.clone());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str("  ");
            line.push_str(&part);
        }
    }
    lines
}

fn step_text(name: &str, state: &StepState, turn: usize, paint: Paint) -> String {
    match state {
        StepState::Waiting => paint.text(Tone::Quiet, &format!("· {name}")),
        StepState::Running(None) => format!("{} {name}", SPINNER[turn % SPINNER.len()]),
        StepState::Running(Some((done, of))) => format!("{} {name} {} {done}/{of}", SPINNER[turn % SPINNER.len()], bar(*done, *of)),
        StepState::Done(took) => format!("{} {name} {}", paint.text(Tone::Good, "✓"), paint.text(Tone::Quiet, &duration(*took))),
        StepState::Kept => format!("{} {name} {}", paint.text(Tone::Good, "="), paint.text(Tone::Quiet, "kept")),
        StepState::Failed => format!("{} {name}", paint.text(Tone::Bad, "✗")),
    }
}

fn bar(done: u32, of: u32) -> String {
    let filled = (done as usize * BAR).checked_div(of as usize).unwrap_or(0).min(BAR);
    format!("{}{}", "█".repeat(filled), "░".repeat(BAR - filled))
}

fn traffic_lines(view: &View, width: usize, paint: Paint) -> Vec<String> {
    let Some(traffic) = &view.traffic else { return Vec::new() };
    let failed = format!("{} failed", thousands(traffic.failed));
    let tone = if traffic.failed == 0 { Tone::Good } else { Tone::Bad };
    let counts = format!(
        "      {}/s · {} requests · {} · {} in flight",
        thousands(traffic.per_second),
        thousands(traffic.requests),
        paint.text(tone, &failed),
        traffic.in_flight
    );
    vec![split_line(view, traffic, width, paint), counts]
}

fn split_line(view: &View, traffic: &Traffic, width: usize, paint: Paint) -> String {
    let total: u64 = traffic.split.values().sum();
    let columns = SPLIT_BAR.min(width / 3) as u64;
    let mut blocks = String::new();
    let mut shares = Vec::new();
    let mut before = 0;
    for (place, release) in view.releases.iter().enumerate() {
        let count = traffic.split.get(release).copied().unwrap_or(0);
        let (from, to) = (before * columns / total.max(1), (before + count) * columns / total.max(1));
        before += count;
        let block: String = std::iter::repeat_n(paint::fill(place), (to - from) as usize).collect();
        blocks.push_str(&paint.text(Tone::Release(place), &block));
        if count > 0 {
            shares.push(paint.text(Tone::Release(place), &format!("{release} {} %", count * 100 / total)));
        }
    }
    format!("      {} {}", paint::padded(&blocks, columns as usize), shares.join("  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            act: Some((4, "version 2".to_owned())),
            steps: vec![
                ("build".to_owned(), StepState::Done(310)),
                ("gate".to_owned(), StepState::Running(Some((2, 3)))),
                ("base".to_owned(), StepState::Kept),
                ("shift".to_owned(), StepState::Waiting),
            ],
            detail: "checking the new nodes".to_owned(),
            traffic: Some(Traffic {
                split: BTreeMap::from([("web-r1".to_owned(), 75), ("web-r2".to_owned(), 25)]),
                per_second: 500,
                requests: 12_345,
                failed: 0,
                in_flight: 34,
            }),
            releases: vec!["web-r1".to_owned(), "web-r2".to_owned()],
        }
    }

    #[test]
    fn the_live_region_tells_act_steps_and_traffic() {
        let drawn = frame(&view(), 3_400, 0, 120, Paint { colour: false }).join("\n");
        let expected = "    ⣾ 3.4 s     ✓ build 310 ms  ⣾ gate ████████░░░░ 2/3  = base kept  · shift
      checking the new nodes
      ██████████████████████████████▒▒▒▒▒▒▒▒▒▒ web-r1 75 %  web-r2 25 %
      500/s · 12,345 requests · 0 failed · 34 in flight";
        assert_eq!(drawn, expected);
    }

    #[test]
    fn a_live_region_never_wraps() {
        let wide = View { detail: "x".repeat(300), ..view() };
        for line in frame(&wide, 0, 3, 60, Paint { colour: true }) {
            assert!(paint::width(&line) < 60, "{line}");
        }
    }

    #[test]
    fn nothing_happens_nothing_is_drawn() {
        assert!(frame(&View::default(), 0, 0, 80, Paint { colour: true }).is_empty());
        let silent = View { traffic: Some(Traffic::default()), ..View::default() };
        assert_eq!(frame(&silent, 0, 0, 80, Paint { colour: false }).len(), 2);
    }

    #[test]
    fn bars_are_full_at_the_end_and_survive_nothing_to_do() {
        assert_eq!((bar(3, 3), bar(0, 0)), ("█".repeat(BAR), "░".repeat(BAR)));
    }
}
