//! When drills may be run on this cluster.

use crate::time::WallTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A day, in minutes.
const DAY_MINUTES: u64 = 24 * 60;

/// Drills on this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrillsSpec {
    /// Whether there may be any.
    pub allowed: bool,
    /// When there may be none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<BlockedWindow>,
}

impl Default for DrillsSpec {
    fn default() -> Self {
        Self { allowed: true, blocked: Vec::new() }
    }
}

impl DrillsSpec {
    /// Whether nothing is said of drills.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The first window that touches the time between these two, both included.
    pub fn blocking(&self, from: WallTime, to: WallTime) -> Option<&BlockedWindow> {
        self.blocked.iter().find(|window| window.touches(from, to))
    }
}

/// A time of the week in which no drill may run, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockedWindow {
    /// The days on which it begins. Empty: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Day>,
    /// When it begins.
    pub from: DayTime,
    /// When it ends; of the next day, if that is not later than its beginning.
    pub to: DayTime,
}

impl BlockedWindow {
    /// Whether some of it lies between these two times, both included.
    pub fn touches(&self, from: WallTime, to: WallTime) -> bool {
        let (from, to) = (minute(from), minute(to));
        // One that began yesterday may reach into today; a whole week has every day there is.
        let first = (from / DAY_MINUTES).saturating_sub(1);
        let last = (to / DAY_MINUTES).min(first + 8);
        (first..=last).filter(|day| self.begins_on(*day)).any(|day| {
            let begins = day * DAY_MINUTES + u64::from(self.from.0);
            begins <= to && from < begins + self.length()
        })
    }

    fn begins_on(&self, day: u64) -> bool {
        // The first of January 1970 was a Thursday.
        let weekday = Day::ALL[usize::try_from((day + 3) % 7).unwrap_or(0)];
        self.days.is_empty() || self.days.contains(&weekday)
    }

    /// In minutes.
    fn length(&self) -> u64 {
        let (from, to) = (u64::from(self.from.0), u64::from(self.to.0));
        if to > from { to - from } else { to + DAY_MINUTES - from }
    }
}

fn minute(at: WallTime) -> u64 {
    at.since(WallTime(0)).as_secs() / 60
}

impl fmt::Display for BlockedWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days.is_empty() {
            f.write_str("every day")?;
        }
        for (number, day) in self.days.iter().enumerate() {
            write!(f, "{}{}", if number > 0 { "," } else { "" }, day.as_str())?;
        }
        write!(f, " {}-{} UTC", self.from, self.to)
    }
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    /// The days of a week in their order.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// The word for people, as in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }
}

/// A time of a day, `"08:00"`, up to `"24:00"`: minutes since midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayTime(u16);

/// Why a text is no time of a day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time of a day: write hours and minutes in UTC, as in \"08:00\"")]
pub struct DayTimeError(String);

impl DayTime {
    /// How long after midnight.
    pub fn after_midnight(self) -> Duration {
        Duration::from_secs(u64::from(self.0) * 60)
    }
}

impl FromStr for DayTime {
    type Err = DayTimeError;

    fn from_str(text: &str) -> Result<Self, DayTimeError> {
        let number = |text: &str| {
            let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u16>().ok()).flatten()
        };
        let parts = text.split_once(':').and_then(|(hour, minute)| Some((number(hour)?, number(minute)?)));
        match parts {
            Some((hour, minute)) if (hour < 24 && minute < 60) || (hour, minute) == (24, 0) => {
                Ok(Self(hour * 60 + minute))
            }
            _ => Err(DayTimeError(text.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for DayTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl Serialize for DayTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DayTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wednesday, the first of July 2026, midnight.
    const WEDNESDAY: u64 = 1_782_864_000_000;

    fn at(days: u64, time: &str) -> WallTime {
        let time: DayTime = time.parse().unwrap();
        WallTime(WEDNESDAY + days * 86_400_000).plus(time.after_midnight())
    }

    fn window(days: &[Day], from: &str, to: &str) -> BlockedWindow {
        BlockedWindow { days: days.to_vec(), from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    #[test]
    fn the_day_is_the_right_one() {
        assert_eq!(at(0, "00:00").to_string(), "2026-07-01T00:00:00.000Z");
        let noon = |days| (at(days, "12:00"), at(days, "12:00"));
        for (days, day) in [(0, Day::Wed), (1, Day::Thu), (4, Day::Sun), (5, Day::Mon), (6, Day::Tue)] {
            let (from, to) = noon(days);
            assert!(window(&[day], "08:00", "18:00").touches(from, to), "{}", day.as_str());
            let others: Vec<_> = Day::ALL.into_iter().filter(|other| *other != day).collect();
            assert!(!window(&others, "08:00", "18:00").touches(from, to), "{}", day.as_str());
        }
    }

    #[test]
    fn a_window_begins_with_its_first_minute_and_ends_before_its_last() {
        let working = window(&[Day::Wed], "08:00", "18:00");
        for (from, to, blocked) in [
            ("07:00", "07:59", false),
            ("07:00", "08:00", true),
            ("17:59", "20:00", true),
            ("18:00", "20:00", false),
            ("07:00", "19:00", true),
        ] {
            assert_eq!(working.touches(at(0, from), at(0, to)), blocked, "{from}-{to}");
        }
        assert!(!working.touches(at(1, "09:00"), at(1, "10:00")), "not on Thursdays");
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let night = window(&[Day::Wed], "22:00", "02:00");
        assert!(!night.touches(at(0, "01:00"), at(0, "01:30")));
        assert!(night.touches(at(0, "23:00"), at(0, "23:10")));
        assert!(night.touches(at(1, "01:59"), at(1, "03:00")));
        assert!(!night.touches(at(1, "02:00"), at(1, "21:59")));
        assert!(window(&[], "00:00", "24:00").touches(at(3, "13:00"), at(3, "13:00")));
        assert!(window(&[], "12:00", "12:00").touches(at(3, "03:00"), at(3, "03:00")), "a whole day");
    }

    #[test]
    fn nonsense_is_refused_with_a_remedy() {
        for bad in ["", "8:00", "08:60", "24:01", "25:00", "08", "+8:00", "08:0a"] {
            assert!(bad.parse::<DayTime>().unwrap_err().to_string().contains("08:00"), "{bad}");
        }
        assert_eq!("24:00".parse::<DayTime>().unwrap().to_string(), "24:00");
    }

    proptest::proptest! {
        /// However far apart the two times are, and whenever they are.
        #[test]
        fn any_time_can_be_asked_about(from: u64, to: u64, begins in 0..=1_440_u16, ends in 0..=1_440_u16) {
            let window = BlockedWindow { days: vec![Day::Sat], from: DayTime(begins), to: DayTime(ends) };
            let _ = window.touches(WallTime(from), WallTime(to));
        }
    }
}
