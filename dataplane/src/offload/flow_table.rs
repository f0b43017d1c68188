//! Which run of a flow may still grow: a fixed hash table that is emptied by counting up a generation.

/// Slots of the table: about twice the flows that one receive batch brings under many small streams.
const SLOTS: usize = 256;
/// Slots looked at before a flow is told there is no room.
const PROBES: usize = 8;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    generation: u32,
    tag: u32,
    run: u32,
}

/// Flow hash → index of the flow's newest run.
#[derive(Debug)]
pub(super) struct FlowTable {
    slots: Box<[Slot; SLOTS]>,
    generation: u32,
}

/// Where a flow stands in the table.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// Its newest run.
    Known {
        /// For [`FlowTable::set`].
        slot: usize,
        /// Index of the run.
        run: usize,
    },
    /// No run yet, and room for one here.
    Free {
        /// For [`FlowTable::set`].
        slot: usize,
    },
    /// No run, and no room: the flow goes uncoalesced until the next batch.
    Full,
}

impl FlowTable {
    pub(super) fn new() -> Self {
        Self { slots: Box::new([Slot::default(); SLOTS]), generation: 1 }
    }

    /// Forgets every flow; O(1) but for once in 2^32 times.
    pub(super) fn reset(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.slots.fill(Slot::default());
            self.generation = 1;
        }
    }

    /// Looks a flow up; `is_flow` tells whether a run with the same hash really is of this flow.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_flow: impl Fn(usize) -> bool) -> Place {
        let tag = tag(hash);
        for probe in 0..PROBES {
            let slot = (hash as usize).wrapping_add(probe) % SLOTS;
            let entry = &self.slots[slot];
            if entry.generation != self.generation {
                return Place::Free { slot };
            }
            if entry.tag == tag && is_flow(entry.run as usize) {
                return Place::Known { slot, run: entry.run as usize };
            }
        }
        Place::Full
    }

    /// Makes `run` the newest of the flow whose place is `slot`.
    #[inline]
    pub(super) fn set(&mut self, slot: usize, hash: u64, run: usize) {
        self.slots[slot] = Slot { generation: self.generation, tag: tag(hash), run: run as u32 };
    }
}

/// The half of the hash that does not choose the slot.
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_found_again_until_the_reset() {
        let mut table = FlowTable::new();
        let Place::Free { slot } = table.find(7, |_| true) else { panic!("empty table") };
        table.set(slot, 7, 42);
        assert!(matches!(table.find(7, |run| run == 42), Place::Known { run: 42, .. }));
        table.reset();
        assert!(matches!(table.find(7, |_| true), Place::Free { .. }));
    }

    #[test]
    fn colliding_flows_take_neighbouring_slots_until_probing_ends() {
        let mut table = FlowTable::new();
        for run in 0..PROBES {
            let Place::Free { slot } = table.find(9, |other| other == run) else { panic!("room for {run}") };
            table.set(slot, 9, run);
        }
        assert!(matches!(table.find(9, |run| run == 3), Place::Known { run: 3, .. }));
        assert!(matches!(table.find(9, |_| false), Place::Full));
    }

    #[test]
    fn a_generation_that_wraps_does_not_bring_old_flows_back() {
        let mut table = FlowTable::new();
        table.set(7, 7, 42);
        table.generation = u32::MAX;
        table.reset();
        assert_eq!(table.generation, 1);
        assert!(matches!(table.find(7, |_| true), Place::Free { .. }));
    }
}
