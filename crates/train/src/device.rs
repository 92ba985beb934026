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
    /// This build has no support for it, or the machine has none; says how to get it.
    pub fn open(self) -> Result<Device, TrainError> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => vulkan(),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(Device::cuda(0)),
            #[allow(unreachable_patterns, reason = "with all features there is no other")]
            other => Err(TrainError::NoDevice(other)),
        }
    }
}

/// The card that Vulkan thinks best; Burn alone would panic at the first tensor where there is none.
#[cfg(feature = "vulkan")]
fn vulkan() -> Result<Device, TrainError> {
    use burn::tensor::{DeviceKind, DeviceType};
    if Device::enumerate(DeviceType::Vulkan).into_vec().is_empty() {
        return Err(TrainError::Device(
            "there is no Vulkan device; install the graphics card's driver, or a software device (Debian: \
             mesa-vulkan-drivers), or leave --device out"
                .into(),
        ));
    }
    Ok(Device::vulkan(DeviceKind::DefaultDevice))
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
