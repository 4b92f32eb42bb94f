//! Which address a site's meeting instances should announce.

use std::net::IpAddr;
use twinsite_model::Token;
use twinsite_model::spec::AnnounceMode;

/// Where a floating IP was observed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A node of this site answers for it.
    Here,
    /// One of another site does.
    Elsewhere,
    /// Nobody does, or not as freshly as what the cluster agreed on.
    Nowhere {
        /// Whether its agreed owner is at this site, so that it may answer any moment.
        expected_here: bool,
    },
}

/// What was observed of a floating IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatingObserved {
    /// The address.
    pub address: IpAddr,
    /// Where it is.
    pub seen: Seen,
}

/// An address to announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// The address.
    pub address: IpAddr,
    /// How much of what the cluster agreed on it was judged by: a token that grows with every change of the owner of
    /// any floating IP. (Those of two addresses cannot be compared.) An announcement under an older one never replaces it.
    pub token: Token,
}

/// What to announce. `None`: nothing that was observed allows a decision, so what is announced stays.
///
/// With `mode = site` the site's own address, always. With `mode = floating` the first floating address that this site
/// was freshly seen to answer for, and the site's own one while it was seen to answer for none.
pub fn decide(
    mode: AnnounceMode,
    site_address: Option<IpAddr>,
    observed: &[FloatingObserved],
) -> Option<IpAddr> {
    if mode == AnnounceMode::Site {
        return site_address;
    }
    for floating in observed {
        match floating.seen {
            Seen::Here => return Some(floating.address),
            // Were another one announced for as long as this one is silent, every hiccup would change the address.
            Seen::Nowhere { expected_here: true } => return None,
            Seen::Elsewhere | Seen::Nowhere { .. } => {}
        }
    }
    observed.iter().any(|floating| floating.seen == Seen::Elsewhere).then_some(site_address).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn seen(last: u8, seen: Seen) -> FloatingObserved {
        FloatingObserved { address: address(last), seen }
    }

    const SILENT: Seen = Seen::Nowhere { expected_here: false };
    const SILENT_HERE: Seen = Seen::Nowhere { expected_here: true };

    #[test]
    fn by_default_the_sites_own_address_whatever_is_observed() {
        let own = Some(address(1));
        for observed in [&[][..], &[seen(10, Seen::Here)], &[seen(10, Seen::Elsewhere)], &[seen(10, SILENT)]]
        {
            assert_eq!(decide(AnnounceMode::Site, own, observed), own);
        }
        assert_eq!(decide(AnnounceMode::Site, None, &[seen(10, Seen::Here)]), None);
    }

    #[test]
    fn the_floating_address_only_while_this_site_is_freshly_seen_to_hold_it() {
        let own = Some(address(1));
        let of = |observed: &[FloatingObserved]| decide(AnnounceMode::Floating, own, observed);
        assert_eq!(of(&[seen(10, Seen::Here)]), Some(address(10)));
        assert_eq!(of(&[seen(10, Seen::Elsewhere)]), own);
        assert_eq!(of(&[seen(10, SILENT)]), None, "silence allows no decision");
        assert_eq!(of(&[seen(10, SILENT_HERE)]), None);
        assert_eq!(of(&[]), None);
        assert_eq!(decide(AnnounceMode::Floating, None, &[seen(10, Seen::Elsewhere)]), None);
    }

    #[test]
    fn of_several_the_first_that_is_here_and_a_moment_of_silence_changes_nothing() {
        let own = Some(address(1));
        let of = |one, other| decide(AnnounceMode::Floating, own, &[seen(10, one), seen(11, other)]);
        assert_eq!(of(Seen::Here, Seen::Here), Some(address(10)));
        assert_eq!(of(Seen::Elsewhere, Seen::Here), Some(address(11)));
        assert_eq!(of(Seen::Elsewhere, Seen::Elsewhere), own);
        assert_eq!(of(SILENT_HERE, Seen::Elsewhere), None, "it answers again any moment");
        assert_eq!(of(SILENT_HERE, Seen::Here), None);
        assert_eq!(of(SILENT, Seen::Here), Some(address(11)), "nobody waits for one that belongs to others");
        assert_eq!(of(SILENT, Seen::Elsewhere), own);
        assert_eq!(of(SILENT, SILENT), None);
    }
}
