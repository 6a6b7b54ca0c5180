//! The settings of a session while a statement of it runs, for `current_setting` and `set_config`.

use std::sync::Arc;

use parking_lot::Mutex;

use super::settings::{Settings, unknown};
use super::{TransactionStatus, Visible};
use crate::Result;

/// A session's settings, to be read and changed.
#[derive(Debug, Clone)]
pub(crate) struct LiveSettings {
    pub(super) visible: Arc<Mutex<Visible>>,
    pub(super) defaults: Arc<Settings>,
}

impl LiveSettings {
    /// Whether these are the settings of the same session.
    pub(crate) fn is(&self, other: &LiveSettings) -> bool {
        Arc::ptr_eq(&self.visible, &other.visible)
    }

    /// The value as SHOW prints it; `None`: there is no such setting.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.visible.lock().settings.get(&name.to_ascii_lowercase())
    }

    /// SET, or SET LOCAL: that ends with the transaction, and outside of one with the statement.
    pub(crate) fn set(&self, name: &str, value: Option<&str>, local: bool) -> Result<()> {
        let name = name.to_ascii_lowercase();
        let mut visible = self.visible.lock();
        if local && visible.status == TransactionStatus::Idle {
            // It must be a value that the setting takes.
            return Settings::clone(&visible.settings).set(&name, value, &self.defaults);
        }
        if local {
            let before = visible.settings.value_to_restore(&name).ok_or_else(|| unknown(&name))?;
            visible.local.push((name.clone(), before));
        }
        Arc::make_mut(&mut visible.settings).set(&name, value, &self.defaults)
    }
}
