//! Small things that occur everywhere.

use super::{DecodeError, pb};
use crate::ids::{FloatingIpName, Incarnation, NameError, NodeId, RoomKey, Token, UpstreamName};
use crate::state::Owner;
use crate::time::WallTime;
use std::net::IpAddr;

impl From<NameError> for DecodeError {
    fn from(error: NameError) -> Self {
        Self::Malformed(error.to_string())
    }
}

pub(super) fn upstream(name: String) -> Result<UpstreamName, DecodeError> {
    Ok(UpstreamName::new(name)?)
}

pub(super) fn ip_name(name: String) -> Result<FloatingIpName, DecodeError> {
    Ok(FloatingIpName::new(name)?)
}

pub(super) fn address(text: &str) -> Result<IpAddr, DecodeError> {
    text.parse().map_err(|_| DecodeError::Malformed("not an IP address".to_owned()))
}

pub(super) fn room(bytes: &[u8]) -> Result<RoomKey, DecodeError> {
    let key = bytes.try_into().map_err(|_| DecodeError::Malformed("a room key has 16 bytes".to_owned()))?;
    Ok(RoomKey(key))
}

pub(super) fn token_to_pb(token: Token) -> pb::LogToken {
    pb::LogToken { generation: token.generation.0, epoch: token.epoch.0 }
}

pub(super) fn token(token: pb::LogToken) -> Token {
    Token::new(token.generation, token.epoch)
}

pub(super) fn required<T>(field: Option<T>, what: &'static str) -> Result<T, DecodeError> {
    field.ok_or_else(|| DecodeError::Malformed(format!("{what} is missing")))
}

pub(super) fn owner_to_pb(owner: &Owner) -> pb::LogOwner {
    pb::LogOwner {
        node: owner.node.0,
        incarnation: owner.incarnation.0,
        token: Some(token_to_pb(owner.token)),
        since_ms: owner.since.0,
        revoked: owner.revoked,
    }
}

pub(super) fn owner(owner: pb::LogOwner) -> Result<Owner, DecodeError> {
    Ok(Owner {
        node: NodeId(owner.node),
        incarnation: Incarnation(owner.incarnation),
        token: token(required(owner.token, "an owner's token")?),
        since: WallTime(owner.since_ms),
        revoked: owner.revoked,
    })
}
