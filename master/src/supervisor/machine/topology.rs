//! Who is told about whom: children learn when and where their parents are up, and when they are gone.

use ffproto::NodeName;
use ffproto::control::ToNode;

use super::seat::State;
use super::{Do, Machine};

impl Machine {
    /// Tells a node that has just registered about each parent that is ready.
    pub(super) fn tell_parents_of(&mut self, child: &NodeName) {
        let Some(node) = self.node(child) else { return };
        for parent in &node.parents {
            self.tell_parent_up(&parent.name, child);
        }
    }

    /// Tells every linked child of a node that it is ready.
    pub(super) fn tell_children_up(&mut self, parent: &NodeName) {
        for child in self.children_of(parent) {
            self.tell_parent_up(parent, &child);
        }
    }

    /// Tells every linked child of a node that its process is gone, if they knew of it.
    pub(super) fn tell_children_gone(&mut self, parent: &NodeName) {
        let Some(seat) = self.seats.get(parent) else { return };
        let (Some(_), Some(incarnation)) = (seat.listens, seat.incarnation) else { return };
        for child in self.children_of(parent) {
            if self.seats.get(&child).is_some_and(|child| child.wire.is_some()) {
                self.tell(&child, ToNode::ParentGone { name: parent.clone(), incarnation });
            }
        }
    }

    fn tell_parent_up(&mut self, parent: &NodeName, child: &NodeName) {
        let (Some(parent), Some(seat)) = (self.seats.get(parent), self.seats.get(child)) else { return };
        let entry = seat.node.parents.iter().find(|entry| entry.name == *parent.name());
        if let (State::Ready, Some(entry), Some(wire)) = (&parent.state, entry, seat.wire)
            && let Some(tell) = parent.parent_up(entry, wire)
        {
            self.out.push(Do::Tell { node: child.clone(), tell });
        }
    }

    fn children_of(&self, parent: &NodeName) -> Vec<NodeName> {
        let is_child = |name: &&NodeName| self.seats[*name].node.parents.iter().any(|p| p.name == *parent);
        self.order.iter().filter(is_child).cloned().collect()
    }
}
