//! Places for boxes and edges.
//!
//! A node's row is the longest way to it from an input. In each row the node with the longest way to an output stands
//! in the first column, so that the trunk of the network runs straight down, and others stand to its right. Edges
//! between neighbouring rows are drawn from box to box; edges that leap over rows run beside the boxes, in lanes: those
//! within the trunk on the left, all others on the right.

use crate::graph::Graph;

pub(super) const WIDTH: usize = 330;
pub(super) const HEIGHT: usize = 46;
const COLUMN: usize = WIDTH + 28;
const ROW: usize = HEIGHT + 22;
const LANE: usize = 14;
const MARGIN: usize = 24;
const TOP: usize = 116;
/// Lanes are not drawn further out than this: edges of a very dense network share the last one.
const MAX_LANES: usize = 40;

/// The upper left corner of a box.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) x: usize,
    pub(super) y: usize,
    row: usize,
    column: usize,
}

#[derive(Debug)]
pub(super) struct Edge {
    /// The curve.
    pub(super) path: String,
    /// The arrow's head.
    pub(super) tip: String,
    /// Whether it leaps over rows.
    pub(super) skips: bool,
}

pub(super) struct Layout {
    /// Inputs, then nodes, then outputs.
    pub(super) boxes: Vec<Place>,
    pub(super) edges: Vec<Edge>,
    pub(super) width: usize,
    pub(super) height: usize,
}

impl Layout {
    pub(super) fn of(graph: &Graph) -> Self {
        let links = links(graph);
        let count = graph.inputs.len() + graph.nodes.len() + graph.outputs.len();
        let mut boxes = places(count, &links);
        let leaps = leaps(&boxes, &links);
        let lanes = |side: Side| {
            let used = leaps.iter().filter(|leap| leap.side == side);
            used.map(|leap| leap.lane + 1).max().unwrap_or(0)
        };
        let left = MARGIN + lanes(Side::Left) * LANE;
        for place in &mut boxes {
            place.x = left + place.column * COLUMN;
            place.y = TOP + place.row * ROW;
        }
        let columns = boxes.iter().map(|place| place.column + 1).max().unwrap_or(1);
        let rows = boxes.iter().map(|place| place.row + 1).max().unwrap_or(1);
        let right = left + columns * COLUMN - (COLUMN - WIDTH);
        let edges = edges(&boxes, &links, &leaps);
        let width = (right + lanes(Side::Right) * LANE + MARGIN).max(560);
        Self { boxes, edges, width, height: TOP + rows * ROW }
    }
}

/// From which box to which each edge goes, boxes being numbered inputs first, then nodes, then outputs. Edges go from
/// lower to higher numbers.
fn links(graph: &Graph) -> Vec<(usize, usize)> {
    let mut writers = vec![None; graph.values.len()];
    let mut write = |id: &crate::graph::ValueId, place: usize| {
        if let Some(writer) = writers.get_mut(id.0) {
            *writer = Some(place);
        }
    };
    graph.inputs.iter().enumerate().for_each(|(place, id)| write(id, place));
    for (place, node) in (graph.inputs.len()..).zip(&graph.nodes) {
        node.outputs.iter().for_each(|id| write(id, place));
    }
    let nodes = graph.nodes.iter().map(|node| node.inputs.as_slice());
    let outputs = graph.outputs.iter().map(std::slice::from_ref);
    let readers = (graph.inputs.len()..).zip(nodes.chain(outputs));
    let writer = |id: &crate::graph::ValueId| writers.get(id.0).copied().flatten();
    let links = readers.flat_map(|(to, ids)| ids.iter().filter_map(move |id| Some((writer(id)?, to))));
    let mut links: Vec<_> = links.filter(|(from, to)| from < to).collect();
    links.sort_unstable_by_key(|&(from, to)| (to, from));
    links.dedup();
    links
}

/// Rows and columns.
fn places(count: usize, links: &[(usize, usize)]) -> Vec<Place> {
    let mut depth = vec![0; count];
    links.iter().for_each(|&(from, to)| depth[to] = depth[to].max(depth[from] + 1));
    let mut height = vec![0; count];
    let mut backwards = links.to_vec();
    backwards.sort_unstable_by(|a, b| b.cmp(a));
    backwards.iter().for_each(|&(from, to)| height[from] = height[from].max(height[to] + 1));

    let mut order: Vec<_> = (0..count).collect();
    order.sort_by_key(|&place| (depth[place], std::cmp::Reverse(height[place]), place));
    let mut boxes = vec![Place::default(); count];
    let (mut row, mut column) = (usize::MAX, 0);
    for place in order {
        column = if depth[place] == row { column + 1 } else { 0 };
        row = depth[place];
        boxes[place] = Place { row, column, ..Place::default() };
    }
    boxes
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// An edge that leaps over rows, beside the boxes.
struct Leap {
    link: (usize, usize),
    side: Side,
    lane: usize,
}

/// The leaping edges with their lanes: short ones inside, and none in a lane where it would meet another.
fn leaps(boxes: &[Place], links: &[(usize, usize)]) -> Vec<Leap> {
    let span = |&(from, to): &(usize, usize)| boxes[to].row - boxes[from].row;
    let mut leaping: Vec<_> = links.iter().copied().filter(|link| span(link) > 1).collect();
    leaping.sort_by_key(|link| (span(link), link.0));
    let mut taken: [Vec<Vec<(usize, usize)>>; 2] = Default::default();
    let mut leaps = Vec::with_capacity(leaping.len());
    for link in leaping {
        let (from, to) = (boxes[link.0], boxes[link.1]);
        let side = if from.column == 0 && to.column == 0 { Side::Left } else { Side::Right };
        let lanes = &mut taken[usize::from(side == Side::Right)];
        let free = |lane: &Vec<(usize, usize)>| lane.iter().all(|&(a, b)| to.row <= a || b <= from.row);
        let lane = lanes.iter().position(free).unwrap_or(lanes.len()).min(MAX_LANES - 1);
        if lane == lanes.len() {
            lanes.push(Vec::new());
        }
        lanes[lane].push((from.row, to.row));
        leaps.push(Leap { link, side, lane });
    }
    leaps
}

fn edges(boxes: &[Place], links: &[(usize, usize)], leaps: &[Leap]) -> Vec<Edge> {
    let near = links.iter().filter(|&&(from, to)| boxes[to].row - boxes[from].row == 1);
    let straight = near.map(|&(from, to)| straight(boxes[from], boxes[to]));
    // The right lanes lie outside the widest of the rows that they pass.
    let columns = |link: (usize, usize)| {
        let rows = boxes[link.0].row..=boxes[link.1].row;
        boxes.iter().filter(|place| rows.contains(&place.row)).map(|place| place.column).max().unwrap_or(0)
    };
    let beside =
        leaps.iter().map(|leap| beside(boxes[leap.link.0], boxes[leap.link.1], leap, columns(leap.link)));
    straight.chain(beside).collect()
}

/// From the bottom of one box to the top of the next.
fn straight(from: Place, to: Place) -> Edge {
    let (x0, y0) = (from.x + WIDTH / 2, from.y + HEIGHT);
    let (x1, y1) = (to.x + WIDTH / 2, to.y);
    let middle = usize::midpoint(y0, y1);
    Edge {
        path: format!("M{x0} {y0}C{x0} {middle} {x1} {middle} {x1} {}", y1 - 5),
        tip: format!("M{x1} {y1}l-4 -7h8z"),
        skips: false,
    }
}

/// From the side of one box to the same side of another.
fn beside(from: Place, to: Place, leap: &Leap, columns: usize) -> Edge {
    // The ends of edges that meet at a box are apart: leaving below, arriving above the middle.
    let (y0, y1) = (from.y + HEIGHT - 12, to.y + 12);
    let path = |x0: usize, x1: usize, lane: usize, out: &str| {
        let bend = 8;
        let (near, back) = if out == "-" { (lane + bend, lane + bend) } else { (lane - bend, lane - bend) };
        format!(
            "M{x0} {y0}H{near}Q{lane} {y0} {lane} {}V{}Q{lane} {y1} {back} {y1}H{x1}",
            y0 + bend,
            y1 - bend
        )
    };
    match leap.side {
        Side::Left => {
            let lane = from.x - (leap.lane + 1) * LANE;
            Edge {
                path: path(from.x, to.x - 5, lane, "-"),
                tip: format!("M{} {y1}l-7 -4v8z", to.x),
                skips: true,
            }
        }
        Side::Right => {
            let lane = from.x - from.column * COLUMN + columns * COLUMN + WIDTH + (leap.lane + 1) * LANE;
            let (x0, x1) = (from.x + WIDTH, to.x + WIDTH);
            Edge { path: path(x0, x1 + 5, lane, "+"), tip: format!("M{x1} {y1}l7 -4v8z"), skips: true }
        }
    }
}
