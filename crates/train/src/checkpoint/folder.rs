//! The checkpoints of a run, as files of its folder.

use super::{Checkpoint, Progress, Score};
use crate::TrainError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The last complete epoch, or where the run was interrupted.
pub const LAST: &str = "last.safetensors";
/// The best evaluation.
pub const BEST: &str = "model_best.safetensors";

/// The folder of a run.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder at `path`, which is made if need be.
    ///
    /// # Errors
    ///
    /// The folder cannot be made.
    pub fn create(path: &Path) -> Result<Self, TrainError> {
        fs::create_dir_all(path).map_err(|error| TrainError::Io { path: path.into(), error })?;
        Ok(Self { path: path.into() })
    }

    /// The folder of a run that stopped, given as the folder or as a checkpoint in it, with the checkpoint that is
    /// furthest.
    ///
    /// # Errors
    ///
    /// There is no checkpoint, or it cannot be read.
    pub fn resume(path: &Path) -> Result<(Self, Checkpoint), TrainError> {
        let fail = |reason: &str| TrainError::Checkpoint { path: path.into(), reason: reason.into() };
        if path.is_file() {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            return Ok((Self { path: folder.into() }, Checkpoint::read(path)?));
        }
        if !path.is_dir() {
            return Err(fail("there is no such run; name the folder that 'cardinal train' made"));
        }
        let folder = Self { path: path.into() };
        let mut files = folder.recoveries()?;
        files.extend(Some(path.join(LAST)).filter(|last| last.exists()));
        let mut furthest: Option<Checkpoint> = None;
        for file in files {
            let found = Checkpoint::read(&file)?;
            let place = |c: &Checkpoint| (c.progress.epoch, c.progress.batch);
            if furthest.as_ref().is_none_or(|known| place(known) <= place(&found)) {
                furthest = Some(found);
            }
        }
        match furthest {
            Some(checkpoint) => Ok((folder, checkpoint)),
            None => Err(fail("holds no checkpoint (last.safetensors or recovery-*.safetensors)")),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is anything to continue from.
    pub fn has_checkpoint(&self) -> bool {
        self.path.join(LAST).exists() || self.recoveries().is_ok_and(|list| !list.is_empty())
    }

    /// Writes the end of an epoch, or where the run was interrupted, and settles the other files.
    ///
    /// # Errors
    ///
    /// The disk refuses; the old files are as they were.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        checkpoint.write(&self.path.join(LAST))?;
        self.settle(&checkpoint.progress)?;
        self.remove(&self.recovery(&checkpoint.progress))
    }

    /// Writes a checkpoint between two epochs' ends, in place of the one before.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub fn save_recovery(&self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        checkpoint.write(&self.recovery(&checkpoint.progress))?;
        self.remove_other_recoveries(&checkpoint.progress)
    }

    /// Makes the files what `progress`, which `last` or a recovery checkpoint holds, says: the best and the kept ones are
    /// there, no others. A run that was stopped before it had done so does it when it continues; what it continues from
    /// stays until there is something newer.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn settle(&self, progress: &Progress) -> Result<(), TrainError> {
        let last = self.path.join(LAST);
        let is_new = |score: &Score| score.epoch == progress.epoch && progress.batch == 0;
        if progress.batch == 0 && last.exists() {
            if progress.kept.iter().any(is_new) {
                self.link(&last, &self.path.join(kept(progress.epoch)))?;
            }
            if progress.best.as_ref().is_some_and(is_new) {
                self.link(&last, &self.path.join(BEST))?;
            }
        }
        // What a run was writing when it was killed.
        self.files("", ".tmp")?.into_iter().try_for_each(|file| self.remove(&file))?;
        for file in self.files("checkpoint-", CHECKPOINT)? {
            let wanted = |score: &Score| file.file_name().is_some_and(|name| *name == *kept(score.epoch));
            if !progress.kept.iter().any(wanted) {
                self.remove(&file)?;
            }
        }
        self.remove_other_recoveries(progress)
    }

    fn remove_other_recoveries(&self, progress: &Progress) -> Result<(), TrainError> {
        let own = self.recovery(progress);
        self.recoveries()?.into_iter().filter(|file| *file != own).try_for_each(|file| self.remove(&file))
    }

    fn recovery(&self, Progress { epoch, batch, .. }: &Progress) -> PathBuf {
        self.path.join(format!("{RECOVERY}{epoch}-{batch}{CHECKPOINT}"))
    }

    fn recoveries(&self) -> Result<Vec<PathBuf>, TrainError> {
        self.files(RECOVERY, CHECKPOINT)
    }

    /// Files whose name begins with `prefix` and ends with `suffix`.
    fn files(&self, prefix: &str, suffix: &str) -> Result<Vec<PathBuf>, TrainError> {
        let io = |error| TrainError::Io { path: self.path.clone(), error };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(prefix) && name.ends_with(suffix) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Gives `file` a second name, at once.
    fn link(&self, file: &Path, name: &Path) -> Result<(), TrainError> {
        let temporary = self.path.join(format!(".link-{}.tmp", std::process::id()));
        let link = || -> io::Result<()> {
            let _ = fs::remove_file(&temporary);
            // Not every file system has links.
            fs::hard_link(file, &temporary).or_else(|_| fs::copy(file, &temporary).map(drop))?;
            fs::rename(&temporary, name)?;
            // Where both are the same file already, the rename leaves the temporary name.
            let _ = fs::remove_file(&temporary);
            Ok(())
        };
        link().map_err(|error| TrainError::Save(format!("{}: {error}", name.display())))
    }

    fn remove(&self, file: &Path) -> Result<(), TrainError> {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(TrainError::Io { path: file.into(), error })
            }
            _ => Ok(()),
        }
    }
}

const RECOVERY: &str = "recovery-";
const CHECKPOINT: &str = ".safetensors";

fn kept(epoch: usize) -> String {
    format!("checkpoint-{epoch}.safetensors")
}
