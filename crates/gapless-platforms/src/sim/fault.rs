//! What goes wrong on the way to the world and back, by chance.

use super::random::Random;
use std::time::Duration;

/// How often things go wrong: of a thousand each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Effects that fail before anything of them is done.
    pub refused: u32,
    /// Effects that fail when a part of them is done.
    pub half_done: u32,
    /// Effects that never arrive; nobody answers.
    pub lost: u32,
    /// Effects that are done and reported as failed.
    pub answer_lost: u32,
    /// Effects that arrive late.
    pub late: u32,
    /// Effects that arrive a second time, later.
    pub again: u32,
    /// Effects that are done and whose delivery then hangs until the faults stop.
    pub hangs: u32,
    /// Looks at the world that fail.
    pub look_fails: u32,
    /// Looks that take long: every part of the world is seen at another instant.
    pub look_is_slow: u32,
    /// Looks that show an earlier world.
    pub look_is_stale: u32,
    /// Looks that hang until the faults stop.
    pub look_hangs: u32,
    /// The longest that anything of this is late.
    pub longest: Duration,
    /// Chance lets the same effect fail no more often in a row. `None`: as often as it comes.
    pub in_a_row: Option<u32>,
}

/// What becomes of one delivery.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    pub(super) half_done: bool,
    pub(super) lost: bool,
    pub(super) answer_lost: bool,
    pub(super) hangs: bool,
    pub(super) delay: Duration,
    pub(super) again_after: Option<Duration>,
}

/// What becomes of one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Clear,
    Fails,
    /// From one part to the next.
    Slow(Duration),
    Stale,
    Hangs,
}

impl Faults {
    /// Draws the fate of a delivery that was not refused.
    pub(super) fn fate(&self, random: &mut Random) -> Fate {
        let half_done = random.happens(self.half_done);
        let lost = !half_done && random.happens(self.lost);
        let late = random.happens(self.late);
        let again = random.happens(self.again);
        Fate {
            half_done,
            lost,
            answer_lost: false,
            hangs: random.happens(self.hangs),
            delay: if late { random.span(self.longest) } else { Duration::ZERO },
            again_after: again.then(|| random.span(self.longest)),
        }
    }

    /// Draws what becomes of a look.
    pub(super) fn sight(&self, random: &mut Random) -> Sight {
        if random.happens(self.look_fails) {
            return Sight::Fails;
        }
        if random.happens(self.look_hangs) {
            return Sight::Hangs;
        }
        if random.happens(self.look_is_slow) {
            return Sight::Slow(random.span(self.longest / 4));
        }
        if random.happens(self.look_is_stale) { Sight::Stale } else { Sight::Clear }
    }
}
