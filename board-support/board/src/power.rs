//! Turning a board off without PSCI firmware.

/// A device that can.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PowerController {
    /// What its node is compatible with; the node's first registers are meant.
    pub compatible: &'static str,
    /// Its programming model.
    pub model: PowerModel,
}

/// Programming model of a [`PowerController`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerModel {
    /// The watchdog in the power manager of the BCM2835 and its successors.
    Bcm2835Pm,
}
