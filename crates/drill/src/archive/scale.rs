//! From time to place: a linear scale with an axis that people can read.

/// The most marks on an axis.
const MARKS_MAX: i64 = 14;

/// A time in milliseconds that is drawn between two places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    from_ms: i64,
    to_ms: i64,
    left: f64,
    right: f64,
}

impl Scale {
    /// A scale; a time without length gets a millisecond.
    pub(super) fn new((from_ms, to_ms): (i64, i64), (left, right): (f64, f64)) -> Self {
        Self { from_ms, to_ms: to_ms.max(from_ms.saturating_add(1)), left, right }
    }

    /// Where a moment is; one that is not in here is at the nearer end.
    pub(super) fn x(&self, at_ms: i64) -> f64 {
        let at = at_ms.clamp(self.from_ms, self.to_ms);
        let (since, length) = (at.saturating_sub(self.from_ms), self.to_ms.saturating_sub(self.from_ms));
        self.left + (self.right - self.left) * since as f64 / length as f64
    }

    /// Whether a moment is in here.
    pub(super) fn holds(&self, at_ms: i64) -> bool {
        (self.from_ms..=self.to_ms).contains(&at_ms)
    }

    /// From where to where a span is, if any of it is in here.
    pub(super) fn span(&self, from_ms: i64, to_ms: i64) -> Option<(f64, f64)> {
        let touches = from_ms <= self.to_ms && to_ms >= self.from_ms;
        touches.then(|| (self.x(from_ms), self.x(to_ms.max(from_ms))))
    }

    /// The moments that the axis names: round ones, the same distance from each other.
    pub(super) fn marks(&self) -> Vec<i64> {
        let length = self.to_ms.saturating_sub(self.from_ms);
        let step = step(length);
        let first = self.from_ms.div_euclid(step).saturating_mul(step);
        let marks = (0..=MARKS_MAX + 1).filter_map(|n| first.checked_add(step.checked_mul(n)?));
        marks.filter(|mark| self.holds(*mark)).collect()
    }
}

/// The smallest round step with which an axis of this length is not crowded.
fn step(length: i64) -> i64 {
    let mut unit: i64 = 1;
    loop {
        for times in [1, 2, 5] {
            let step = unit.saturating_mul(times);
            if length / step < MARKS_MAX {
                return step;
            }
        }
        let Some(next) = unit.checked_mul(10) else { return i64::MAX };
        unit = next;
    }
}

/// A moment for people: `0`, `+250 ms`, `−1.5 s`, `+12 min`.
pub(super) fn moment(at_ms: i64) -> String {
    if at_ms == 0 {
        return "0".to_owned();
    }
    let sign = if at_ms < 0 { '\u{2212}' } else { '+' };
    format!("{sign}{}", duration(at_ms.unsigned_abs()))
}

/// A duration for people, to three figures or so.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", rounded(ms, 1_000)),
        _ => format!("{} min", rounded(ms, 60_000)),
    }
}

/// Up to two places after the point, without zeros at the end.
fn rounded(ms: u64, unit: u64) -> String {
    let text = format!("{:.2}", ms as f64 / unit as f64);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_proportion_and_stay_inside() {
        let scale = Scale::new((-100, 900), (100.0, 1_100.0));
        let near = |one: f64, other: f64| (one - other).abs() < 1e-6;
        assert!(near(scale.x(-100), 100.0) && near(scale.x(0), 200.0) && near(scale.x(900), 1_100.0));
        assert!(near(scale.x(i64::MIN), 100.0) && near(scale.x(i64::MAX), 1_100.0));
        let (from, to) = scale.span(-500, 400).unwrap();
        assert!(near(from, 100.0) && near(to, 600.0));
        assert_eq!(scale.span(901, 2_000), None);
        assert!(Scale::new((5, 5), (0.0, 10.0)).x(5).is_finite());
    }

    #[test]
    fn marks_are_round_few_and_inside() {
        let marks = |from, to| Scale::new((from, to), (0.0, 1.0)).marks();
        assert_eq!(marks(-120, 905), [-100, 0, 100, 200, 300, 400, 500, 600, 700, 800, 900]);
        assert_eq!(marks(0, 3), [0, 1, 2, 3]);
        for (from, to) in [(0, 1_800_000), (-7, 12_345), (i64::MIN, i64::MAX)] {
            let marks = marks(from, to);
            assert!((2..=15).contains(&marks.len()), "{from} {to}: {marks:?}");
        }
    }

    #[test]
    fn times_are_in_words() {
        assert_eq!([moment(0), moment(250), moment(-1_500)], ["0", "+250 ms", "\u{2212}1.5 s"]);
        assert_eq!([duration(1_050), duration(60_000), duration(1_800_000)], ["1.05 s", "60 s", "30 min"]);
    }
}
