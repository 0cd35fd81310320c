//! This process as discovery: the nodes that were given the same [`InProcessNet`] find each other in it.

use std::collections::BTreeMap;

use ffproto::{NodeName, NodeNumber};
use tokio::sync::watch;

use super::{Discovery, DiscoveryError};
use crate::cluster::found::{Found, OwnNode, Snapshot};
use crate::runtime::in_process::InProcessNet;

/// Discovery within a process. The number of a node is what its process gives it.
pub(crate) struct MemoryDiscovery {
    pub(crate) net: InProcessNet,
    pub(crate) number: NodeNumber,
}

/// The nodes of a process, and whom every number was given to.
#[derive(Debug, Default)]
pub(crate) struct Residents {
    pub(crate) nodes: BTreeMap<NodeName, Found>,
    numbers: BTreeMap<NodeNumber, NodeName>,
}

impl Residents {
    /// Notes that a number is a node's, now and when the node is gone.
    fn own(&mut self, number: NodeNumber, name: &NodeName) -> Result<(), DiscoveryError> {
        let owner = self.numbers.entry(number).or_insert_with(|| name.clone());
        if owner == name { Ok(()) } else { Err(DiscoveryError::NumberTaken { number, owner: owner.clone() }) }
    }
}

impl Discovery for MemoryDiscovery {
    async fn run(
        &mut self,
        own: &mut watch::Receiver<OwnNode>,
        shown: &watch::Sender<Snapshot>,
    ) -> Result<(), DiscoveryError> {
        let (number, residents) = (self.number, self.net.residents());
        let mut seen = residents.subscribe();
        let name = own.borrow().name.clone();
        let mut owned = Ok(());
        residents.send_if_modified(|all| {
            owned = all.own(number, &name);
            false
        });
        owned?;
        // Ends with the future, however that ends: memory needs no lease.
        let _entry = Entry { net: self.net.clone(), name };
        own.mark_changed();
        seen.mark_changed();
        loop {
            tokio::select! {
                told = own.changed() => {
                    let own = own.borrow_and_update().clone();
                    if told.is_err() || own.leaving {
                        return Ok(());
                    }
                    residents.send_modify(|all| drop(all.nodes.insert(own.name.clone(), own.found(number))));
                }
                _ = seen.changed() => {
                    let nodes = seen.borrow_and_update().nodes.clone();
                    shown.send_replace(Snapshot { number: Some(number), nodes });
                }
            }
        }
    }
}

/// The entry of a node among the residents.
struct Entry {
    net: InProcessNet,
    name: NodeName,
}

impl Drop for Entry {
    fn drop(&mut self) {
        // One that has ended without a word is shown as ended.
        self.net.residents().send_if_modified(|all| {
            let leaves = all.nodes.get(&self.name).is_some_and(|node| !node.ended);
            leaves && all.nodes.remove(&self.name).is_some()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_nodes_for_ever() {
        let (mut residents, name) = (Residents::default(), |name: &str| NodeName::try_from(name).unwrap());
        residents.own(NodeNumber(1), &name("gate")).unwrap();
        residents.own(NodeNumber(1), &name("gate")).unwrap();
        let error = residents.own(NodeNumber(1), &name("game")).unwrap_err();
        assert_eq!(error.to_string(), "number 1 is `gate`'s");
    }
}
