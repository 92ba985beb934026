use crate::ModelError;
use crate::backbones::{Backbone, EfficientNet, FbNet, FeatureInfo, Head, RegNet, ResNet, TResNet, Tap};
use crate::registry::{self, Arch, Variant};
use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// What a user may choose about a model.
#[derive(Config, Debug, PartialEq)]
pub struct ModelOptions {
    /// Classes; 0 leaves the classifier out, so that the model gives embeddings.
    #[config(default = 1000)]
    pub num_classes: usize,
    /// Channels of the input image.
    #[config(default = 3)]
    pub in_chans: usize,
    /// Dropout before the classifier. The papers' final layer uses 0.2 in ResNeSt-200 and -269.
    #[config(default = 0.0)]
    pub drop_rate: f64,
    /// Stochastic depth at the last block; earlier blocks have less.
    #[config(default = 0.0)]
    pub drop_path_rate: f64,
    /// Start each residual branch at zero, where the network does so (ResNeSt section 5.2); `false` starts every norm's
    /// weight at 1.
    #[config(default = true)]
    pub zero_init_last: bool,
    /// DropBlock in the last two stages of the ResNet families (ResNeSt section 5.2: 0.1, reached linearly).
    #[config(default = 0.0)]
    pub drop_block_rate: f64,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Builds the network called `name` (timm's name, an alias, or `name.tag`) on `device`.
///
/// Parameters draw their values when they are first read, so that loading a checkpoint draws nothing. On an autodiff
/// device the network trains; `valid()` makes it infer.
///
/// # Errors
///
/// No variant has that name.
pub fn create(name: &str, options: &ModelOptions, device: &Device) -> Result<Model, ModelError> {
    Ok(Model::new(registry::find(name)?, options, device))
}

/// Any network of the registry.
#[derive(Module, Debug)]
pub struct Model {
    net: Network,
    #[module(skip)]
    info: Info,
}

#[derive(Clone, Debug)]
struct Info {
    variant: &'static Variant,
    in_chans: usize,
}

#[derive(Module, Debug)]
#[expect(clippy::enum_variant_names, reason = "they are the families' names")]
enum Network {
    ResNet(ResNet),
    TResNet(TResNet),
    RegNet(RegNet),
    EfficientNet(EfficientNet),
    FbNet(FbNet),
}

impl Model {
    /// Builds `variant` on `device`.
    pub fn new(variant: &'static Variant, options: &ModelOptions, device: &Device) -> Self {
        let net = match &variant.arch {
            Arch::ResNet(config) => Network::ResNet(config.init(options, device)),
            Arch::TResNet(config) => Network::TResNet(config.init(options, device)),
            Arch::RegNet(config) => Network::RegNet(config.init(options, device)),
            Arch::EfficientNet(config) => Network::EfficientNet(config.init(options, device)),
            Arch::FbNet(config) => Network::FbNet(config.init(options, device)),
        };
        Self { net, info: Info { variant, in_chans: options.in_chans } }
    }

    /// The row of the registry that this is.
    pub fn variant(&self) -> &'static Variant {
        self.info.variant
    }

    /// Channels of the input.
    pub fn in_chans(&self) -> usize {
        self.info.in_chans
    }

    /// Number of classes; 0 without a classifier.
    pub fn num_classes(&self) -> usize {
        self.backbone().head().classes()
    }

    /// Gives the model a new classifier of `classes` outputs with PyTorch's default initialisation; none for 0.
    pub fn reset_classifier(&mut self, classes: usize, device: &Device) {
        self.head_mut().reset(classes, device);
    }

    /// Sets DropBlock's rate, which training raises over its epochs. Without effect where the model was built with a
    /// rate of 0, and in families that have no DropBlock.
    pub fn set_drop_block_rate(&mut self, rate: f64) {
        if let Network::ResNet(net) = &mut self.net {
            net.set_drop_block_rate(rate);
        }
    }

    /// Whether an input `[n, c, h, w]` can go through the model, which [`forward`](Backbone::forward) takes for
    /// granted.
    ///
    /// # Errors
    ///
    /// What the shape would have to be.
    pub fn check_input(&self, shape: &[usize]) -> Result<[usize; 4], ModelError> {
        let fail = |reason: String| ModelError::Input {
            model: self.info.variant.name.into(),
            shape: shape.to_vec(),
            reason,
        };
        let &[n, c, h, w] = shape else {
            return Err(fail("it must be [images, channels, height, width]".into()));
        };
        let (multiple, least) = self.info.variant.arch.input_sizes();
        if n == 0 {
            return Err(fail("there must be at least one image".into()));
        }
        if c != self.info.in_chans {
            return Err(fail(format!("it must have {} channels", self.info.in_chans)));
        }
        if h % multiple != 0 || w % multiple != 0 {
            return Err(fail(format!("height and width must be multiples of {multiple}")));
        }
        if h < least || w < least {
            return Err(fail(format!("height and width must be at least {least}")));
        }
        Ok([n, c, h, w])
    }

    fn backbone(&self) -> &dyn Backbone {
        match &self.net {
            Network::ResNet(net) => net,
            Network::TResNet(net) => net,
            Network::RegNet(net) => net,
            Network::EfficientNet(net) => net,
            Network::FbNet(net) => net,
        }
    }
}

impl Backbone for Model {
    fn stages(&self, x: Tensor<4>, tap: Tap<'_>) -> Tensor<4> {
        self.backbone().stages(x, tap)
    }

    fn last_conv(&self, x: Tensor<4>) -> Tensor<4> {
        self.backbone().last_conv(x)
    }

    fn feature_info(&self) -> Vec<FeatureInfo> {
        self.backbone().feature_info()
    }

    fn feature_names(&self) -> Vec<String> {
        self.backbone().feature_names()
    }

    fn forward_head(&self, x: Tensor<4>, pre_logits: bool) -> Tensor<2> {
        self.backbone().forward_head(x, pre_logits)
    }

    fn head(&self) -> &Head {
        self.backbone().head()
    }

    fn head_mut(&mut self) -> &mut Head {
        match &mut self.net {
            Network::ResNet(net) => net.head_mut(),
            Network::TResNet(net) => net.head_mut(),
            Network::RegNet(net) => net.head_mut(),
            Network::EfficientNet(net) => net.head_mut(),
            Network::FbNet(net) => net.head_mut(),
        }
    }
}
