//! Durations that depend on the cluster's timings: `"lease + 200ms"`.

use serde::{Deserialize, Deserializer, de};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use twinsite_model::Timing;

/// A sum of durations and timings, each of them perhaps several times: `"election_max + 2*lease + 400ms"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Term {
    times: u32,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Fixed(Duration),
    Named(Name),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Heartbeat,
    ElectionMin,
    ElectionMax,
    Renew,
    Lease,
    Slack,
    Wait,
}

const NAMES: [(&str, Name); 7] = [
    ("heartbeat", Name::Heartbeat),
    ("election_min", Name::ElectionMin),
    ("election_max", Name::ElectionMax),
    ("renew", Name::Renew),
    ("lease", Name::Lease),
    ("slack", Name::Slack),
    ("wait", Name::Wait),
];

/// Terms of one limit at most.
const TERMS_MAX: usize = 8;

/// Why a text is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no limit: write durations and timings with `+` between them, as in \"lease + 200ms\" or \"2*renew\" \
     (timings: heartbeat, election_min, election_max, renew, lease, slack, wait)"
)]
pub struct LimitError(String);

impl Limit {
    /// Always the same.
    pub fn fixed(duration: Duration) -> Self {
        Self { terms: vec![Term { times: 1, what: What::Fixed(duration) }] }
    }

    /// The duration in a cluster with these timings.
    pub fn in_timing(&self, timing: &Timing) -> Duration {
        self.terms.iter().map(|term| term.what.in_timing(timing).saturating_mul(term.times)).sum()
    }
}

impl What {
    fn in_timing(self, timing: &Timing) -> Duration {
        match self {
            Self::Fixed(duration) => duration,
            Self::Named(Name::Heartbeat) => timing.heartbeat,
            Self::Named(Name::ElectionMin) => timing.election_min,
            Self::Named(Name::ElectionMax) => timing.election_max,
            Self::Named(Name::Renew) => timing.renew,
            Self::Named(Name::Lease) => timing.lease,
            Self::Named(Name::Slack) => timing.slack,
            Self::Named(Name::Wait) => timing.wait(),
        }
    }
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let bad = || LimitError(text.chars().take(80).collect());
        let terms: Option<Vec<_>> = text.split('+').map(|term| parse_term(term.trim())).collect();
        let terms = terms.filter(|terms| terms.len() <= TERMS_MAX).ok_or_else(bad)?;
        Ok(Self { terms })
    }
}

fn parse_term(text: &str) -> Option<Term> {
    let (times, what) = match text.split_once('*') {
        Some((times, what)) => (times.trim().parse().ok()?, what.trim()),
        None => (1, text),
    };
    let named = NAMES.iter().find(|(name, _)| *name == what).map(|(_, name)| What::Named(*name));
    let what = named.or_else(|| humantime::parse_duration(what).ok().map(What::Fixed))?;
    Some(Term { times, what })
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            if index > 0 {
                f.write_str(" + ")?;
            }
            if term.times != 1 {
                write!(f, "{}*", term.times)?;
            }
            match term.what {
                What::Fixed(duration) => humantime::format_duration(duration).fmt(f)?,
                What::Named(name) => {
                    let named = NAMES.iter().find(|(_, known)| *known == name);
                    f.write_str(named.map_or("", |(word, _)| word))?;
                }
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_model::Profile;

    #[test]
    fn limits_follow_the_profile() {
        let limit: Limit = "election_max + lease + 400ms".parse().unwrap();
        let ms = Duration::from_millis;
        assert_eq!(limit.in_timing(&Timing::of(Profile::Lan)), ms(120 + 300 + 400));
        assert_eq!(limit.in_timing(&Timing::of(Profile::Wan)), ms(800 + 3_000 + 400));
        assert_eq!(limit.to_string(), "election_max + lease + 400ms");
        assert_eq!("2*renew".parse::<Limit>().unwrap().in_timing(&Timing::of(Profile::Lan)), ms(50));
    }

    #[test]
    fn nonsense_is_refused_with_a_remedy() {
        for bad in ["", "lease +", "x", "1", "lease - 1ms", "-1*lease", &"1ms+".repeat(9)] {
            let error = bad.parse::<Limit>().unwrap_err().to_string();
            assert!(error.contains("lease + 200ms"), "{error}");
        }
    }
}
