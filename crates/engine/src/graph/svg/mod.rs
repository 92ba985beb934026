//! Graphs as pictures: from top to bottom, one box per node, in one self-contained SVG for light and dark pages.

mod layout;

use super::{Graph, Node, Op};
use cardinal_kernels::DType;
use layout::{Edge, Layout, Place};
use std::fmt::Write;

/// Characters that fit on a box's second line.
const LINE: usize = 52;

// Plain rules, since not every viewer knows variables; the dark ones only replace colours.
const STYLE: &str = "
text{font-family:system-ui,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;font-size:12px;fill:#1c2330}
.page{fill:#ffffff}
.title{font-size:20px;font-weight:600}
.path{font-weight:600}
.soft,.size{fill:#5d6778}
.size{text-anchor:end;font-variant-numeric:tabular-nums}
.box{fill:#ffffff;stroke:#d5dae2}
.wire{fill:none;stroke:#98a2b3;stroke-width:1.5}
.tip{fill:#98a2b3}
.skip{stroke:#e0792b;stroke-width:2}
.skip-tip{fill:#e0792b}
@media (prefers-color-scheme:dark){
text{fill:#e6e9ef}
.page{fill:#14171d}
.soft,.size{fill:#a3adbd}
.box{fill:#1d222b;stroke:#343c4a}
}
";

impl Graph {
    /// A picture of the graph. Edges that leap over nodes, such as shortcuts, run beside the column.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let layout = Layout::of(self);
        let mut svg = String::new();
        // Writing to a string cannot fail.
        let _ = Picture { graph: self, layout: &layout, svg: &mut svg }.draw();
        svg
    }
}

/// What boxes are coloured by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Terminal,
    Convolution,
    Linear,
    Norm,
    Pool,
    Attention,
    Elementwise,
    Shape,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Terminal,
        Self::Convolution,
        Self::Linear,
        Self::Norm,
        Self::Pool,
        Self::Attention,
        Self::Elementwise,
        Self::Shape,
    ];

    fn of(op: &Op) -> Self {
        match op {
            Op::Conv2d(_) => Self::Convolution,
            Op::Linear { .. } => Self::Linear,
            Op::ActivatedNorm { .. } => Self::Norm,
            Op::MaxPool(_) | Op::AvgPool { .. } | Op::GlobalAvgPool | Op::RadixPool { .. } | Op::BlurPool => {
                Self::Pool
            }
            Op::SplitAttention { .. } | Op::Gate { .. } => Self::Attention,
            Op::Unary(_) | Op::Binary(_) | Op::Softmax | Op::Drop { .. } => Self::Elementwise,
            Op::Reshape { .. }
            | Op::Permute { .. }
            | Op::Concat
            | Op::SliceChannels { .. }
            | Op::Pad(_)
            | Op::SpaceToDepth { .. } => Self::Shape,
        }
    }

    /// The name in the legend and the colour, which stands out on white and on black.
    fn look(self) -> (&'static str, &'static str) {
        match self {
            Self::Terminal => ("input, output", "#667085"),
            Self::Convolution => ("convolution", "#2f7de1"),
            Self::Linear => ("linear", "#5b5bd6"),
            Self::Norm => ("norm", "#8aa51c"),
            Self::Pool => ("pool", "#12a594"),
            Self::Attention => ("attention", "#d6409f"),
            Self::Elementwise => ("element by element", "#8e6bd1"),
            Self::Shape => ("layout", "#a18072"),
        }
    }
}

struct Picture<'a> {
    graph: &'a Graph,
    layout: &'a Layout,
    svg: &'a mut String,
}

impl Picture<'_> {
    fn draw(&mut self) -> std::fmt::Result {
        let (width, height) = (self.layout.width, self.layout.height);
        let name = if self.graph.name.is_empty() { "graph" } else { &self.graph.name };
        writeln!(
            self.svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>",
            escape(name)
        )?;
        writeln!(self.svg, "<rect class=\"page\" width=\"{width}\" height=\"{height}\"/>")?;
        self.head(name)?;
        for edge in &self.layout.edges {
            self.edge(edge)?;
        }
        let boxes = &self.layout.boxes;
        for (node, place) in self.graph.nodes.iter().zip(&boxes[self.graph.inputs.len()..]) {
            self.node(node, place)?;
        }
        let terminals = boxes.iter().take(self.graph.inputs.len());
        let ends = boxes.iter().skip(self.graph.inputs.len() + self.graph.nodes.len());
        let ids = self.graph.inputs.iter().chain(&self.graph.outputs);
        for (place, (i, id)) in terminals.chain(ends).zip(ids.enumerate()) {
            let word = if i < self.graph.inputs.len() { "input" } else { "output" };
            let (name, shape) = match self.graph.values.get(id.0) {
                Some(value) => (value.name.as_str(), value.shape.as_slice()),
                None => ("", [].as_slice()),
            };
            self.boxed(place, Kind::Terminal, if name.is_empty() { word } else { name }, word, shape, "")?;
        }
        self.svg.push_str("</svg>\n");
        Ok(())
    }

    fn head(&mut self, name: &str) -> std::fmt::Result {
        let total = self.graph.analyze(DType::F32).total;
        writeln!(self.svg, "<text class=\"title\" x=\"24\" y=\"40\">{}</text>", escape(&cut(name, 40)))?;
        writeln!(
            self.svg,
            "<text class=\"soft\" x=\"24\" y=\"62\">{} nodes · {} parameters · {} multiply-adds per image</text>",
            self.graph.nodes.len(),
            short(total.parameters),
            short(total.macs)
        )?;
        let used: Vec<_> = self.graph.nodes.iter().map(|node| Kind::of(&node.op)).collect();
        let mut x = 24;
        for kind in Kind::ALL.into_iter().filter(|kind| used.contains(kind)) {
            let (name, colour) = kind.look();
            writeln!(
                self.svg,
                "<rect x=\"{x}\" y=\"76\" width=\"10\" height=\"10\" rx=\"2\" fill=\"{colour}\"/>\
                 <text class=\"soft\" x=\"{}\" y=\"85\">{name}</text>",
                x + 15
            )?;
            x += 34 + 7 * name.len();
        }
        Ok(())
    }

    fn edge(&mut self, edge: &Edge) -> std::fmt::Result {
        let (class, tip) = if edge.skips { ("wire skip", "skip-tip") } else { ("wire", "tip") };
        writeln!(self.svg, "<path class=\"{class}\" d=\"{}\"/>", edge.path)?;
        writeln!(self.svg, "<path class=\"{tip}\" d=\"{}\"/>", edge.tip)
    }

    fn node(&mut self, node: &Node, place: &Place) -> std::fmt::Result {
        let operator = self.graph.describe(node);
        let shapes: Vec<_> = node
            .outputs
            .iter()
            .filter_map(|id| self.graph.values.get(id.0))
            .map(|value| &value.shape)
            .collect();
        let attributes: Vec<_> = super::text::attributes(&node.op)
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let tip = format!("{} {}\n{shapes:?}", node.place(), attributes.join(" "));
        let name = if node.name.is_empty() { node.op.name() } else { &node.name };
        let shape = shapes.first().map_or(&[] as &[usize], |shape| shape);
        self.boxed(place, Kind::of(&node.op), name, &operator, shape, &tip)
    }

    /// A box: name and sizes on the first line, what it does on the second.
    fn boxed(
        &mut self,
        place: &Place,
        kind: Kind,
        name: &str,
        does: &str,
        shape: &[usize],
        tip: &str,
    ) -> std::fmt::Result {
        let Place { x, y, .. } = *place;
        let (w, h) = (layout::WIDTH, layout::HEIGHT);
        let (_, colour) = kind.look();
        let sizes: Vec<_> = shape.iter().skip(1).map(usize::to_string).collect();
        let sizes = sizes.join(" × ");
        writeln!(self.svg, "<g>")?;
        if !tip.is_empty() {
            writeln!(self.svg, "<title>{}</title>", escape(tip))?;
        }
        writeln!(
            self.svg,
            "<rect class=\"box\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"6\"/>\
             <rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"6\" fill=\"{colour}\" fill-opacity=\"0.09\"/>\
             <rect x=\"{x}\" y=\"{}\" width=\"4\" height=\"{}\" rx=\"2\" fill=\"{colour}\"/>",
            y + 6,
            h - 12
        )?;
        let room = 40_usize.saturating_sub(sizes.chars().count());
        writeln!(
            self.svg,
            "<text class=\"path\" x=\"{}\" y=\"{}\">{}</text><text class=\"size\" x=\"{}\" y=\"{}\">{sizes}</text>",
            x + 14,
            y + 18,
            escape(&cut_front(name, room)),
            x + w - 12,
            y + 18
        )?;
        writeln!(
            self.svg,
            "<text class=\"soft\" x=\"{}\" y=\"{}\">{}</text>\n</g>",
            x + 14,
            y + 35,
            escape(&cut(does, LINE))
        )
    }
}

/// `25.6 M`.
fn short(count: u64) -> String {
    let units = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    match units.into_iter().find(|(unit, _)| count as f64 >= *unit) {
        Some((unit, letter)) => format!("{:.2}{letter}", count as f64 / unit),
        None => count.to_string(),
    }
}

/// The first `room` characters.
fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

/// The last `room` characters: paths differ at their end.
fn cut_front(text: &str, room: usize) -> String {
    let count = text.chars().count();
    if count <= room {
        return text.to_owned();
    }
    ['…'].into_iter().chain(text.chars().skip(count + 1 - room.clamp(1, count))).collect()
}

/// The text inside an element. Characters that XML does not have become the replacement character.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            '\0'..' ' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(c),
        }
    }
    escaped
}
