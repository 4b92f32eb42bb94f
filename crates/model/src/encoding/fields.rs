//! Single values: names, tokens, addresses, keys, choices.

use super::{DecodeError, wire};
use crate::drill::DrillOutcome;
use crate::errand::ErrandEnd;
use crate::ids::{NameError, RoomKey, Token};
use crate::operation::{Fence, OperationKind, Outcome, Reason, SafetyRule, Step, StepResult};
use crate::state::Verdict;
use crate::ticket_keys::TicketSecret;
use std::net::IpAddr;
use std::time::Duration;

pub(super) fn required<T>(value: Option<T>, field: &'static str) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { field })
}

pub(super) fn read_name<N: TryFrom<String, Error = NameError>>(
    text: String,
    field: &'static str,
) -> Result<N, DecodeError> {
    N::try_from(text).map_err(|error| DecodeError::invalid(field, error))
}

/// The value's text, as the message owns it.
pub(super) fn write_name(name: &(impl ToString + ?Sized)) -> String {
    name.to_string()
}

pub(super) fn write_token(token: Token) -> wire::LogToken {
    wire::LogToken { generation: token.generation.0, epoch: token.epoch.0 }
}

pub(super) fn read_token(token: wire::LogToken) -> Token {
    Token::new(token.generation, token.epoch)
}

pub(super) fn required_token(token: Option<wire::LogToken>) -> Result<Token, DecodeError> {
    required(token, "token").map(read_token)
}

/// What is longer than 584 years is written as that.
pub(super) fn write_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) const fn read_nanos(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

pub(super) fn write_address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

pub(super) fn read_address(bytes: &[u8]) -> Result<IpAddr, DecodeError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(v4));
    }
    let v6 = <[u8; 16]>::try_from(bytes);
    v6.map(IpAddr::from).map_err(|_| DecodeError::invalid("address", "it must have 4 or 16 bytes"))
}

pub(super) fn write_room(room: &RoomKey) -> Vec<u8> {
    room.0.to_vec()
}

pub(super) fn read_room(bytes: &[u8]) -> Result<RoomKey, DecodeError> {
    let key = <[u8; 16]>::try_from(bytes);
    key.map(RoomKey).map_err(|_| DecodeError::invalid("room", "it must have 16 bytes"))
}

pub(super) fn read_secret(bytes: &[u8]) -> Result<TicketSecret, DecodeError> {
    let secret = <[u8; 32]>::try_from(bytes);
    secret.map(TicketSecret::new).map_err(|_| DecodeError::invalid("secret", "it must have 32 bytes"))
}

/// A choice among named values, with its number on the wire.
pub(super) trait Choice: Sized {
    fn write(self) -> i32;

    /// `None` if nothing was chosen.
    fn read(number: i32) -> Result<Option<Self>, DecodeError>;

    fn read_required(number: i32, field: &'static str) -> Result<Self, DecodeError> {
        required(Self::read(number)?, field)
    }
}

macro_rules! choice {
    ($model:ident, $wire:ident, [$($variant:ident),+ $(,)?]) => {
        impl Choice for $model {
            fn write(self) -> i32 {
                match self {
                    $(Self::$variant => wire::$wire::$variant as i32,)+
                }
            }

            fn read(number: i32) -> Result<Option<Self>, DecodeError> {
                match wire::$wire::try_from(number) {
                    Ok(wire::$wire::Unspecified) => Ok(None),
                    $(Ok(wire::$wire::$variant) => Ok(Some(Self::$variant)),)+
                    Err(_) => Err(DecodeError::newer(format!("{} {number}", stringify!($model)))),
                }
            }
        }
    };
}

choice!(Verdict, LogVerdict, [Unknown, Healthy, Unhealthy, Draining]);
choice!(OperationKind, LogOperationKind, [Placement, Failover, Switchover, Failback, Forced]);
choice!(
    Reason,
    LogReason,
    [
        NoOwner,
        OwnerReleased,
        OwnerSilent,
        OwnerRestarted,
        SiteUnhealthy,
        OwnerIneligible,
        Operator,
        Preference,
        Recovery,
        OwnerStopped,
    ]
);
choice!(Step, LogStep, [Decide, Drain, Fence, Move, Observe, Announce, Verify]);
choice!(StepResult, LogStepResult, [Done, Skipped, TimedOut]);
choice!(Fence, LogFence, [NoOwner, Released, LeaseEnded, Attested]);
choice!(
    SafetyRule,
    LogSafetyRule,
    [TargetHealthy, TargetReachesStore, TargetReady, NotPaused, BreakerClosed]
);
choice!(ErrandEnd, LogErrandEnd, [Accepted, Refused, Unanswered, NotMade, WaitedOut]);
choice!(DrillOutcome, LogDrillOutcome, [Passed, Failed, Aborted, Abandoned]);
choice!(Outcome, LogOutcome, [Verified, Unverified, Aborted]);

pub(super) fn write_choices<C: Choice + Copy>(choices: &[C]) -> Vec<i32> {
    choices.iter().map(|choice| choice.write()).collect()
}

pub(super) fn read_choices<C: Choice>(numbers: &[i32], field: &'static str) -> Result<Vec<C>, DecodeError> {
    numbers.iter().map(|number| C::read_required(*number, field)).collect()
}
