//! Chooses kernels by measuring them, and remembers the choices on disk.

use crate::EngineError;
use cardinal_kernels::{
    Bf16, Conv, ConvIo, ConvSpec, DType, Element, Isa, KernelError, Line, Method, Part, Pool,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long each candidate runs; its fastest run counts.
const TRIAL: Duration = Duration::from_millis(15);

/// Measured choices of convolution methods, by processor and shape.
#[derive(Debug)]
pub struct Tuner {
    path: PathBuf,
    cpu: String,
    /// `processor, shape` to the name of a method.
    choices: BTreeMap<String, String>,
    changed: bool,
    pool: Option<Pool>,
}

impl Tuner {
    /// Reads earlier choices from `path`, if the file exists: a line for each, key and method with a tab between.
    ///
    /// # Errors
    ///
    /// The file exists but cannot be read.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(EngineError::File { reason: format!("{}: {error}", path.display()) }),
        };
        let line =
            |line: &str| line.split_once('\t').map(|(key, method)| (key.to_owned(), method.to_owned()));
        let choices = text.lines().filter_map(line).collect();
        Ok(Self { path: path.into(), cpu: super::machine::cpu(), choices, changed: false, pool: None })
    }

    /// Writes the choices where they were read from, through a temporary file.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn save(&self) -> Result<(), EngineError> {
        if !self.changed {
            return Ok(());
        }
        let mut text = String::new();
        for (key, method) in &self.choices {
            let _ = writeln!(text, "{key}\t{method}");
        }
        let fail =
            |error: std::io::Error| EngineError::File { reason: format!("{}: {error}", self.path.display()) };
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(fail)?;
        }
        let temporary = self.path.with_extension(format!("{}.partial", std::process::id()));
        let written = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, &self.path));
        if written.is_err() {
            // What matters is the error; the leftover may not even exist.
            let _ = std::fs::remove_file(&temporary);
        }
        written.map_err(fail)
    }

    /// The fastest method for a convolution of `images` images on `threads` threads, from the file or by measuring.
    pub(super) fn choose(
        &mut self,
        (spec, weight, bias): (&ConvSpec, &[f32], Option<&[f32]>),
        dtype: DType,
        isa: Isa,
        images: usize,
        threads: usize,
    ) -> Result<Method, KernelError> {
        let methods = Conv::methods(spec, dtype, isa);
        let key = self.key(spec, dtype, isa, images, threads);
        if let Some(name) = self.choices.get(&key)
            && let Some(&method) = methods.iter().find(|method| method.name() == name)
        {
            return Ok(method);
        }
        if self.pool.as_ref().is_none_or(|pool| pool.threads() != threads) {
            self.pool = Some(Pool::new(threads, true));
        }
        let Some(pool) = &self.pool else { unreachable!("it was just made") };
        let mut best = (f64::INFINITY, Conv::choose(spec, dtype, isa, images, threads));
        for method in methods {
            let conv = Conv::new(spec, weight, bias, dtype, isa, method)?;
            let seconds = match dtype {
                DType::F32 => time::<f32>(&conv, spec, images, pool)?,
                DType::Bf16 => time::<Bf16>(&conv, spec, images, pool)?,
            };
            if seconds < best.0 {
                best = (seconds, method);
            }
        }
        self.choices.insert(key, best.1.name().to_owned());
        self.changed = true;
        Ok(best.1)
    }

    fn key(&self, spec: &ConvSpec, dtype: DType, isa: Isa, images: usize, threads: usize) -> String {
        let ConvSpec { input, output, kernel, stride, dilation, groups, .. } = spec;
        format!(
            "{}, {isa} {} x{threads}: {images} x {}x{}x{} to {}x{}x{} k{}x{} s{}x{} d{}x{} g{groups}",
            self.cpu,
            dtype.name(),
            input.c,
            input.h,
            input.w,
            output.c,
            output.h,
            output.w,
            kernel[0],
            kernel[1],
            stride[0],
            stride[1],
            dilation[0],
            dilation[1],
        )
    }
}

/// Seconds of the fastest run.
fn time<T: Element>(conv: &Conv, spec: &ConvSpec, images: usize, pool: &Pool) -> Result<f64, KernelError> {
    let input = vec![T::from_f32(0.5); images * spec.input.image()];
    let mut output = vec![T::default(); images * spec.output.image()];
    let residual = spec.residual.map(|map| vec![T::from_f32(0.5); images * map.image()]);
    let mut pooled = vec![0.0; images * spec.output.c];
    let mut scratch = vec![Line::ZERO; conv.scratch(pool.threads())];
    let part = Part::whole(images, spec.output.h);
    let mut best = f64::INFINITY;
    let start = Instant::now();
    let mut runs = 0;
    while runs < 3 || start.elapsed() < TRIAL {
        let run = Instant::now();
        let io = ConvIo {
            input: &input,
            output: &mut output,
            residual: residual.as_deref(),
            pooled: spec.pooled.then_some(pooled.as_mut_slice()),
            scratch: &mut scratch,
        };
        conv.run(pool, &part, io)?;
        best = best.min(run.elapsed().as_secs_f64());
        runs += 1;
    }
    Ok(best)
}
