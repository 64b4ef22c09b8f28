//! Signals that would end this process, where something has to be put right before.

use ginnel::notify::{Disposition, Signal, SignalSet};

use crate::failure::Result;

/// Those of these signals that are not ignored: what is (by `nohup`, in the background of a script) stays ignored.
pub(crate) fn unless_ignored(signals: &[Signal]) -> Result<SignalSet> {
    let mut set = SignalSet::EMPTY;
    for signal in signals {
        if Disposition::current(*signal)? != Disposition::Ignored {
            set = set.with(*signal);
        }
    }
    Ok(set)
}

/// Ends this process by the signal that it was to end by, so that the shell that waits knows.
pub(crate) fn die_of(signal: Signal) {
    // Where that is refused the exit code, which is 128 and the signal as a rule, has to do.
    let _ = signal.restore_default().and_then(|_| signal.raise());
}
