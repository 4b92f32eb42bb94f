//! Session placement in the replicated state: the same rules as the scripts that run in Redis.

use super::{Effect, Handled, Refusal};
use crate::event::Event;
use crate::faults::{Fault, Faults};
use crate::ids::{Revision, RoomKey, Token, UpstreamName};
use crate::state::{EMBEDDED_PINS_MAX, Format, Pin, State};
use crate::time::WallTime;

impl State {
    /// If the given token is older than the newest seen: refuse.
    fn admit_session_token(&self, given: Token) -> Result<(), Refusal> {
        let seen = self.session_token();
        let forgets = Faults::here().has(Fault::ForgetTokenCheck);
        if given < seen && !forgets { Err(Refusal::StaleToken { given, seen }) } else { Ok(()) }
    }

    /// Keeps the newest token of an accepted write. What a writer gives is never trusted beyond what the state itself
    /// has reached: a wrong number would lock every other writer out.
    fn keep_session_token(&mut self) {
        self.sessions.token = self.session_token();
    }

    pub(super) fn pin_room(
        &mut self,
        revision: Revision,
        room: RoomKey,
        upstream: &UpstreamName,
        replace: Option<&UpstreamName>,
        token: Token,
    ) -> Handled {
        if self.spec.as_ref().ok_or(Refusal::NoSpec)?.upstream(upstream).is_none() {
            return Err(Refusal::UnknownUpstream(upstream.clone()));
        }
        self.admit_session_token(token)?;
        if let Some(known) = self.sessions.pins.get(&room)
            && Some(&known.upstream) != replace
        {
            return Ok((Effect::Placed(known.clone()), Vec::new()));
        }
        if !self.sessions.pins.contains_key(&room) && self.sessions.pins.len() >= EMBEDDED_PINS_MAX {
            return Err(Refusal::SessionsFull);
        }
        self.keep_session_token();
        let placed = (self.format >= Format::PLACES).then_some(revision);
        let pin = Pin { upstream: upstream.clone(), token, touched: self.wall, placed };
        self.sessions.pins.insert(room, pin.clone());
        Ok((Effect::Placed(pin), vec![Event::RoomPinned { room, upstream: upstream.clone(), token }]))
    }

    pub(super) fn touch_rooms(&mut self, rooms: &[RoomKey], token: Token) -> Handled {
        self.admit_session_token(token)?;
        let now = self.wall;
        let mut touched = false;
        for room in rooms {
            if let Some(pin) = self.sessions.pins.get_mut(room) {
                touched |= pin.touched != now;
                pin.touched = now;
            }
        }
        if !touched {
            return Ok((Effect::Unchanged, Vec::new()));
        }
        self.keep_session_token();
        Ok((Effect::Done, Vec::new()))
    }

    pub(super) fn expire_rooms(&mut self, before: WallTime) -> (Effect, Vec<Event>) {
        let count = self.sessions.pins.len();
        self.sessions.pins.retain(|_, pin| pin.touched >= before);
        let gone = (count - self.sessions.pins.len()) as u32;
        if gone == 0 {
            (Effect::Unchanged, Vec::new())
        } else {
            (Effect::Done, vec![Event::RoomsExpired { count: gone }])
        }
    }
}
