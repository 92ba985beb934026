//! Where a step is computed.

use crate::TrainError;
use burn::tensor::Device;
use std::fmt;
use std::str::FromStr;

/// A kind of device, by the name that users give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceKind {
    /// The processor.
    #[default]
    Cpu,
    /// A graphics card by Vulkan; cargo feature `vulkan`.
    Vulkan,
    /// An NVIDIA card by CUDA; cargo feature `cuda`.
    Cuda,
}

impl DeviceKind {
    /// The device, without autodiff.
    ///
    /// # Errors
    ///
    /// This build has no support for it; says how to get it.
    pub fn open(self) -> Result<Device, TrainError> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Ok(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(Device::cuda(0)),
            #[allow(unreachable_patterns, reason = "with all features there is no other")]
            other => Err(TrainError::NoDevice(other)),
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Vulkan => "vulkan",
            Self::Cuda => "cuda",
        })
    }
}

impl FromStr for DeviceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Cpu, Self::Vulkan, Self::Cuda]
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| "the devices are cpu, vulkan and cuda".into())
    }
}
