//! Sessions beside another: of the same client, each for one transaction of it.
//!
//! They have the same temporary tables, views and sequences, know the same values of sequences and the same prepared
//! statements. Settings each has its own, so that transactions that are open at the same time do not disturb each other: a
//! session takes them over before its transaction begins, and hands back what has changed when that is committed, as if
//! there were one session.

use std::sync::Arc;

use parking_lot::Mutex;

use super::settings::Settings;
use super::{Kept, Session, Shared, Visible};
use crate::Result;

/// What a session knows of the one it is beside.
#[derive(Debug)]
pub(super) struct Beside {
    /// What can be seen of the other.
    other: Arc<Mutex<Visible>>,
    /// The settings that both had last.
    common: Mutex<Option<Arc<Settings>>>,
}

impl Visible {
    /// The settings without what ends with the open transaction.
    fn lasting(&self, defaults: &Settings) -> Arc<Settings> {
        if self.local.is_empty() && self.settings.current_modes.is_none() {
            return Arc::clone(&self.settings);
        }
        let mut settings = Settings::clone(&self.settings);
        settings.current_modes = None;
        for (name, value) in self.local.iter().rev() {
            if let Err(error) = settings.set(name, Some(value), defaults) {
                tracing::warn!(name, error = error.message(), "a setting did not go back");
            }
        }
        Arc::new(settings)
    }
}

impl Session {
    /// A session of the same client, which has the same temporary tables, views and sequences. They go when the last of
    /// such sessions ends.
    pub fn beside(&self) -> Session {
        let Shared { database, identity, temporary, sequences, named, visible, .. } = &*self.shared;
        temporary.enter();
        let kept = Kept {
            temporary: Arc::clone(temporary),
            sequences: Arc::clone(sequences),
            named: Arc::clone(named),
            beside: Some(Beside { other: Arc::clone(visible), common: Mutex::default() }),
        };
        Session::with_kept(database.clone(), identity.clone(), kept)
    }

    /// Takes over the settings of the session that this one is beside, as they are now. For one that is in no transaction.
    pub fn take_over_settings(&self) {
        let Shared { beside: Some(beside), defaults, visible, .. } = &*self.shared else { return };
        let settings = beside.other.lock().lasting(defaults);
        *beside.common.lock() = Some(Arc::clone(&settings));
        visible.lock().settings = settings;
    }

    /// Sets what the session that this one is beside is given, too: no change of its transaction, which hands it back only if
    /// it changes it once more. `None` is the default.
    pub fn set_in_common(&self, name: &str, value: Option<&str>) -> Result<()> {
        let name = name.to_ascii_lowercase();
        self.shared.set(&name, value)?;
        if let Some(begun) = &mut self.shared.visible.lock().begun {
            Arc::make_mut(&mut begun.settings).set(&name, value, &self.shared.defaults)?;
        }
        let Shared { beside: Some(beside), defaults, .. } = &*self.shared else { return Ok(()) };
        let mut common = beside.common.lock();
        match common.as_mut() {
            Some(common) => Arc::make_mut(common).set(&name, value, defaults),
            None => Ok(()),
        }
    }

    /// Hands the settings that have been changed since to the session that this one is beside. If that is in a transaction of
    /// its own with SET LOCAL, those names go back to what they were before it all the same.
    pub fn hand_back_settings(&self) {
        let Shared { beside: Some(beside), defaults, visible, .. } = &*self.shared else { return };
        let after = visible.lock().lasting(defaults);
        let before = beside.common.lock().replace(Arc::clone(&after));
        let Some(before) = before else { return };
        let mut other = beside.other.lock();
        if let Some(begun) = &mut other.begun {
            Arc::make_mut(&mut begun.settings).take_changes(&before, &after);
        }
        match Arc::ptr_eq(&other.settings, &before) {
            true => other.settings = after,
            false => Arc::make_mut(&mut other.settings).take_changes(&before, &after),
        }
    }
}
