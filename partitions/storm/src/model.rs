//! What a GIC must do next, from what it has been told (GICv2: IHI 0048, 3.2 to 3.3; GICv3: IHI 0069, 4.1, 4.8).
//!
//! Among interrupts of one priority a GIC may choose, and among the senders of one SGI, so the model accepts any.
//! Priorities are multiples of 8, which every GIC has, and not the least urgent one, which a mask cannot let
//! through.

use bulkhead_rt::gic::{self, SPURIOUS, offset};
use bulkhead_rt::random::Random;
use bulkhead_rt::time::Timer;
use bulkhead_rt::{Verdict, ensure, ensure_eq};
use heapless::Vec;

/// Interrupts that are enabled and pending before each acknowledge: more than a GICv3 has list registers.
pub const PENDING: usize = 17;
/// Interrupts that one CPU can send itself.
const MAX_SOURCES: usize = 24;
/// Priorities, 8 apart.
const PRIORITIES: u64 = 31;

/// PPI of the performance monitor, where software can make it pending.
const PMU: u32 = 23;

struct Source {
    intid: u32,
    priority: u8,
    enabled: bool,
    /// A bit for each sender; all but SGIs of a GICv2 come from CPU 0.
    pending: u8,
    active: bool,
    /// How often it became pending, from whatever sender, and was not withdrawn.
    sent: u32,
    delivered: u32,
}

/// The GIC and what was done to it, by CPU 0.
pub struct Model {
    random: Random,
    split: bool,
    /// CPUs that an SGI of a GICv2 may come from.
    senders: u64,
    sources: Vec<Source, MAX_SOURCES>,
    /// Active ones whose priority counts, the most urgent last.
    running: Vec<usize, MAX_SOURCES>,
    /// Active ones whose priority was dropped.
    dropped: Vec<usize, MAX_SOURCES>,
    mask: u8,
    /// Bits of a priority that decide about preemption.
    group: u8,
    delivered: u32,
}

impl Model {
    /// A GIC that was set up anew, with everything that this CPU may send itself enabled at some priority.
    pub fn new(seed: u64, split: bool, cpus: usize) -> Self {
        let mut random = Random::new(seed);
        let mut sources = Vec::new();
        let peripherals = [PMU, Timer::Virtual.intid(), Timer::Physical.intid(), gic::uart_intid()];
        for intid in (0..16).chain(peripherals) {
            let priority = 8 * random.below(PRIORITIES) as u8;
            gic::set_priority(intid, priority);
            gic::enable(intid);
            gic::set_pending(intid);
            let usable = gic::bit(offset::ISENABLER, intid) && gic::bit(offset::ISPENDR, intid);
            gic::clear_pending(intid);
            if usable {
                let source = Source {
                    intid,
                    priority,
                    enabled: true,
                    pending: 0,
                    active: false,
                    sent: 0,
                    delivered: 0,
                };
                // There is room for all of them.
                let _ = sources.push(source);
            }
        }
        Self {
            random,
            split,
            senders: if gic::is_v2() { cpus.min(8) as u64 } else { 1 },
            sources,
            running: Vec::new(),
            dropped: Vec::new(),
            mask: 0xff,
            group: 0xff,
            delivered: 0,
        }
    }

    /// How many interrupts there are to send.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Interrupts delivered so far.
    pub fn delivered(&self) -> u32 {
        self.delivered
    }

    /// Active ones whose priority counts.
    pub fn nested(&self) -> usize {
        self.running.len()
    }

    /// True once in `n` times, at random.
    pub fn decide(&mut self, n: u64) -> bool {
        self.random.below(n) == 0
    }

    fn any(&mut self) -> usize {
        self.random.below(self.sources.len() as u64) as usize
    }

    fn waiting(&self) -> usize {
        self.sources.iter().filter(|source| source.enabled && source.pending != 0).count()
    }

    /// Whether fewer are pending than should be.
    pub fn wants_more(&self) -> bool {
        self.waiting() < PENDING
    }

    /// Makes interrupts pending until as many are as should be.
    pub fn fill(&mut self) {
        while self.wants_more() {
            self.pend_any();
        }
    }

    /// Makes an enabled interrupt pending that is not, or that is from another sender.
    pub fn pend_any(&mut self) {
        let first = self.any();
        let count = self.sources.len();
        let idle = |source: &Source| source.enabled && source.pending == 0;
        let chosen = (first..first + count).map(|n| n % count).find(|&n| idle(&self.sources[n]));
        self.pend(chosen.unwrap_or(first));
    }

    fn pend(&mut self, n: usize) {
        let source = &mut self.sources[n];
        let intid = source.intid;
        let sender = if intid < 16 { self.random.below(self.senders) } else { 0 };
        if intid < 16 && sender == 0 && self.random.below(2) == 0 {
            gic::send_sgi(gic::sgi_to(intid, 0));
        } else if intid < 16 && gic::is_v2() {
            gic::set_pending_from(intid, sender as usize);
        } else {
            gic::set_pending(intid);
        }
        let bit = 1 << sender;
        if source.pending & bit == 0 {
            source.pending |= bit;
            source.sent += 1;
        }
    }

    /// Changes something about the GIC that changes what comes next; `points` says whether the binary point, too.
    pub fn disturb(&mut self, points: bool) -> Verdict {
        let n = self.any();
        match self.random.below(24) {
            0..4 if !self.sources[n].active => {
                let priority = 8 * self.random.below(PRIORITIES) as u8;
                gic::set_priority(self.sources[n].intid, priority);
                self.sources[n].priority = priority;
            }
            4 => self.withdraw(n),
            5 => self.toggle(n),
            6 => self.pend(n),
            7 => {
                // For one look, else the urgent ones alone would come.
                let mask = 8 * self.random.below(PRIORITIES) as u8;
                self.set_mask(mask);
                self.take()?;
                self.set_mask(0xff);
            }
            8 if points && self.running.is_empty() => {
                let bits = self.random.below(5) as u8;
                // 1 to 4 bits of group priority, or all.
                let point = if bits == 0 { 0 } else { gic::halving_binary_point() - (bits - 1) };
                gic::set_binary_point(point);
                self.group = if bits == 0 { 0xff } else { 0xff << (8 - bits) };
            }
            9.. if !self.dropped.is_empty() && self.random.below(4) == 0 => {
                let which = self.random.below(self.dropped.len() as u64) as usize;
                self.deactivate(which);
            }
            _ => {}
        }
        Ok(())
    }

    fn set_mask(&mut self, mask: u8) {
        self.mask = mask;
        gic::set_priority_mask(mask);
    }

    fn withdraw(&mut self, n: usize) {
        let source = &mut self.sources[n];
        gic::clear_pending(source.intid);
        source.sent -= source.pending.count_ones();
        source.pending = 0;
    }

    /// Disables an interrupt, or enables it again. SGIs of a GICv2 may be enabled for ever.
    fn toggle(&mut self, n: usize) {
        let disabled = self.sources.iter().filter(|source| !source.enabled).count();
        let spare = self.sources.len() - PENDING;
        let source = &mut self.sources[n];
        if !source.enabled {
            gic::enable(source.intid);
            source.enabled = true;
        } else if disabled < spare && !(gic::is_v2() && source.intid < 16) {
            gic::disable(source.intid);
            source.enabled = false;
        }
    }

    fn running_priority(&self) -> u32 {
        match self.running.last() {
            Some(&n) => u32::from(self.sources[n].priority & self.group),
            None => gic::IDLE,
        }
    }

    /// The priority of what an acknowledge must find now.
    fn due(&self) -> Option<u8> {
        let candidates =
            self.sources.iter().filter(|source| source.enabled && source.pending != 0 && !source.active);
        let best = candidates.map(|source| source.priority).min()?;
        let preempts = u32::from(best & self.group) < self.running_priority();
        (best < self.mask && preempts).then_some(best)
    }

    /// Acknowledges; false where there was nothing, rightly.
    pub fn take(&mut self) -> Result<bool, bulkhead_rt::Failure> {
        let due = self.due();
        let (intid, sender) = gic::acknowledge_from();
        let Some(priority) = due else {
            ensure_eq!(intid, SPURIOUS, "acknowledge {} of nothing", self.delivered);
            return Ok(false);
        };
        let Some(n) = self.sources.iter().position(|source| source.intid == intid) else {
            ensure!(false, "acknowledge {} is {intid}, lost is one of {priority:#x}", self.delivered);
            return Ok(false);
        };
        let source = &mut self.sources[n];
        let bit = 1 << sender;
        ensure!(
            source.enabled && !source.active && source.pending & bit != 0,
            "acknowledge {} is {intid} from {sender}, pending {:#x}, active {}",
            self.delivered,
            source.pending,
            source.active
        );
        ensure_eq!(source.priority, priority, "priority of {intid}, acknowledge {}", self.delivered);
        source.pending &= !bit;
        source.active = true;
        source.delivered += 1;
        self.delivered += 1;
        let full = self.running.push(n).is_err();
        ensure!(!full, "more active interrupts than there are");
        if self.random.below(8) == 0 {
            ensure_eq!(gic::running_priority(), self.running_priority(), "running priority");
        }
        Ok(true)
    }

    /// Ends the most urgent active interrupt, and deactivates something if that comes apart.
    pub fn end(&mut self) -> Verdict {
        let Some(n) = self.running.pop() else {
            ensure!(false, "nothing to end");
            return Ok(());
        };
        gic::end(self.sources[n].intid);
        if !self.split {
            self.sources[n].active = false;
            return Ok(());
        }
        let full = self.dropped.push(n).is_err();
        ensure!(!full, "more active interrupts than there are");
        // A few stay active, and come to their end in any order.
        while self.dropped.len() > 3 || self.dropped.len() > 1 && self.random.below(2) == 0 {
            let which = self.random.below(self.dropped.len() as u64) as usize;
            self.deactivate(which);
        }
        Ok(())
    }

    fn deactivate(&mut self, which: usize) {
        let n = self.dropped.swap_remove(which);
        gic::deactivate(self.sources[n].intid);
        self.sources[n].active = false;
    }

    /// Deactivates and enables everything.
    fn calm(&mut self) {
        while !self.dropped.is_empty() {
            self.deactivate(0);
        }
        for source in &mut self.sources {
            source.enabled = true;
            gic::enable(source.intid);
        }
    }

    /// Takes and ends what is left. Then each was delivered as often as it was sent, and the GIC has nothing any more.
    pub fn finish(&mut self) -> Verdict {
        loop {
            while self.nested() > 0 {
                self.end()?;
            }
            self.calm();
            if !self.take()? {
                break;
            }
        }
        ensure_eq!(gic::running_priority(), gic::IDLE, "running priority at the end");
        for source in &self.sources {
            let intid = source.intid;
            ensure_eq!(source.delivered, source.sent, "deliveries of {intid}");
            ensure!(!gic::bit(offset::ISPENDR, intid), "{intid} is pending at the end");
            ensure!(!gic::bit(offset::ISACTIVER, intid), "{intid} is active at the end");
        }
        Ok(())
    }
}
