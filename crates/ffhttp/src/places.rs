//! The places of a front's connections: those for everybody, and a few for the paths that are always answered.

use std::net::IpAddr;

use ffnet::admission::{Admission, Bounds, Slot};

use crate::config::Places;

/// The places that are kept for the paths that are always answered: more than there are probes and scrapes.
const RESERVED: usize = 16;

/// The bounds on those that are kept.
pub(crate) const KEPT: Bounds = Bounds { connections: RESERVED, per_block: RESERVED / 4 };

/// The admission of connections to a front.
#[derive(Debug)]
pub(crate) struct FrontAdmission {
    all: Admission,
    reserved: Admission,
}

/// The place of one connection.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) slot: Slot,
    /// Whether the place is one of those that are kept.
    pub(crate) reserved: bool,
}

impl FrontAdmission {
    pub(crate) fn new(places: Places) -> Self {
        let connections = places.connections;
        Self {
            all: Admission::new(Bounds { connections, per_block: connections.div_ceil(2) }),
            reserved: Admission::new(KEPT),
        }
    }

    /// A place for a connection from there; `None` when requests run on all that it could have.
    pub(crate) fn admit(&self, from: IpAddr) -> Option<Place> {
        let place = |slot, reserved| Place { slot, reserved };
        let free = self.all.admit(from).map(|slot| place(slot, false));
        free.or_else(|| self.reserved.admit(from).map(|slot| place(slot, true)))
    }

    /// A place for a connection that another process, or this one, has served before.
    pub(crate) fn take_in(&self, from: IpAddr) -> Place {
        Place { slot: self.all.take_in(from), reserved: false }
    }

    /// Waits until somebody could be admitted. Cancel-safe.
    pub(crate) async fn room(&self) {
        while self.all.is_full() && self.reserved.is_full() {
            tokio::select! {
                () = self.all.freed() => {}
                () = self.reserved.freed() => {}
            }
        }
    }
}
