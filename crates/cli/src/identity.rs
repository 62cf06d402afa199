//! What a device calls itself: its id, which must stay the same, and its name.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use connlib_os::{process, random};

use crate::environment::Environment;
use crate::exit::Failure;
use crate::settings::Role;

/// The device's id if nobody has said another one: that of an earlier run, else a new one.
///
/// It is kept in `/var/lib/connlib/<role>-id` (unprivileged: under `$XDG_STATE_HOME`). Where Firezone's program has kept
/// one on this machine, it is that one, so that a swap of binaries is no new device.
///
/// # Errors
///
/// The operating system has no randomness.
pub(crate) fn device_id(role: Role, environment: &Environment) -> Result<String, Failure> {
    let own = state_directory(environment).map(|directory| directory.join(format!("{role}-id")));
    let firezone = firezone_file(role).map(Path::new);
    let known = [own.as_deref(), firezone].into_iter().flatten();
    if let Some(id) = known.filter_map(read_id).next() {
        return Ok(id);
    }

    let seed = random::seed().map_err(|error| Failure::os("make a device id", &error))?;
    let id = hex(&seed);
    let kept = own.as_deref().map(|path| keep(path, &id));
    if !matches!(kept, Some(Ok(()))) {
        tracing::info!("The device id can't be kept; it is good for this run only");
    }

    Ok(id)
}

/// The name that people see for this device if nobody has said another one.
pub(crate) fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();

    match name.trim() {
        "" => "unnamed".into(),
        name => name.into(),
    }
}

fn state_directory(environment: &Environment) -> Option<PathBuf> {
    if process::effective_uid() == 0 {
        return Some("/var/lib/connlib".into());
    }
    if let Some(state) = environment.value("XDG_STATE_HOME") {
        return Some(Path::new(state).join("connlib"));
    }

    let home = environment.value("HOME")?;
    Some(Path::new(home).join(".local/state/connlib"))
}

/// Where Firezone's programs keep their ids (client.md §13, gateway.md §14.2).
fn firezone_file(role: Role) -> Option<&'static str> {
    match role {
        Role::Client => Some("/var/lib/dev.firezone.client/config/firezone-id.json"),
        Role::Gateway => Some("/var/lib/firezone/gateway_id"),
        Role::Relay | Role::Portal => None,
    }
}

/// Reads an id as it is, or as `{"id":"…"}`.
fn read_id(path: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Kept {
        id: String,
    }

    let text = fs::read_to_string(path).ok()?;
    let id = match serde_json::from_str::<Kept>(&text) {
        Ok(kept) => kept.id,
        Err(_) => text.trim().to_owned(),
    };

    (!id.is_empty()).then_some(id)
}

/// Writes an id in such a way that a file with half an id never exists.
fn keep(path: &Path, id: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)?;
    let unfinished = path.with_extension(format!("{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(&unfinished)
        .and_then(|mut file| {
            writeln!(file, "{id}")?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }

    written
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_id_is_read_in_both_forms() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/client-id");

        assert_eq!(read_id(&path), None);
        keep(&path, "abc").unwrap();
        keep(&path, "def").unwrap();
        assert_eq!(read_id(&path).as_deref(), Some("def"));
        fs::write(&path, "{\"id\":\"ghi\"}").unwrap();
        assert_eq!(read_id(&path).as_deref(), Some("ghi"));
        fs::write(&path, "\n").unwrap();
        assert_eq!(read_id(&path), None);

        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "nothing unfinished stays");
    }

    #[test]
    fn ids_are_hexadecimal() {
        assert_eq!(hex(&[0, 0xab, 0x10]), "00ab10");
    }
}
