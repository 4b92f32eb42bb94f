//! Which address a site's meeting instances should announce.

use std::net::IpAddr;
use twinsite_model::Token;
use twinsite_model::spec::AnnounceMode;

/// What was observed of a floating IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatingObserved {
    /// The address.
    pub address: IpAddr,
    /// The token under which it answered.
    pub token: Token,
    /// Whether the node that answered is at this site.
    pub at_this_site: bool,
    /// Whether the answer is as new as what the cluster agreed on.
    pub fresh: bool,
}

/// An address to announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// The address.
    pub address: IpAddr,
    /// The newest token that it follows from: an announcement under an older one never replaces it.
    pub token: Token,
}

/// What to announce. `None`: nothing that was observed allows a decision, so what is announced stays.
///
/// With `mode = site` the site's own address, always; the tokens only date the announcement. With `mode = floating` the
/// floating address while this site was freshly seen to answer for it, and the site's own one while another was.
pub fn decide(
    mode: AnnounceMode,
    site_address: Option<IpAddr>,
    observed: &[FloatingObserved],
) -> Option<Announcement> {
    let fresh = || observed.iter().filter(|floating| floating.fresh);
    let token = fresh().map(|floating| floating.token).max();
    match mode {
        AnnounceMode::Site => Some(Announcement { address: site_address?, token: token.unwrap_or_default() }),
        AnnounceMode::Floating => {
            let here = fresh().find(|floating| floating.at_this_site).map(|floating| floating.address);
            let address = here.or(site_address)?;
            Some(Announcement { address, token: token? })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn seen(epoch: u64, at_this_site: bool, fresh: bool) -> FloatingObserved {
        FloatingObserved { address: address(10), token: Token::new(1, epoch), at_this_site, fresh }
    }

    #[test]
    fn by_default_the_sites_own_address_whatever_is_observed() {
        let own = Some(address(1));
        for observed in [&[][..], &[seen(4, true, true)], &[seen(4, false, true)], &[seen(3, true, false)]] {
            assert_eq!(decide(AnnounceMode::Site, own, observed).unwrap().address, address(1));
        }
        assert_eq!(decide(AnnounceMode::Site, own, &[seen(4, false, true)]).unwrap().token, Token::new(1, 4));
        assert_eq!(decide(AnnounceMode::Site, None, &[seen(4, true, true)]), None);
    }

    #[test]
    fn the_floating_address_only_while_this_site_is_freshly_seen_to_hold_it() {
        let own = Some(address(1));
        let of = |observed: &[FloatingObserved]| decide(AnnounceMode::Floating, own, observed);
        assert_eq!(of(&[seen(4, true, true)]).unwrap().address, address(10));
        assert_eq!(of(&[seen(4, false, true)]).unwrap().address, address(1));
        assert_eq!(of(&[seen(3, true, false)]), None, "an old answer allows no decision");
        assert_eq!(of(&[]), None, "nor does silence");
        assert_eq!(decide(AnnounceMode::Floating, None, &[seen(4, false, true)]), None);
    }
}
