//! Pictures as SVG: heat maps and curves. Colours are classes, so that the page can turn dark.

use std::fmt::Write;

/// Steps of a colour scale; `q0` to `q8` in the page's style.
const STEPS: usize = 9;
/// A span wider than this is told by its logarithm.
const LOG_FROM: f64 = 20.0;
/// So many of anything are not yet many.
const FEW: f64 = 4.0;

/// For text between tags and in attributes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Which unit a value has, and how it is written where there is little room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Unit {
    Millis,
    PerSecond,
    Count,
    Bytes,
}

impl Unit {
    pub(super) fn short(self, value: f64) -> String {
        match self {
            Self::Millis if value >= 999.5 => format!("{} s", digits(value / 1e3)),
            Self::Millis => format!("{} ms", digits(value)),
            Self::PerSecond if value >= 999_500.0 => format!("{}M", digits(value / 1e6)),
            Self::PerSecond if value >= 9_999.5 => format!("{}k", digits(value / 1e3)),
            Self::PerSecond | Self::Count => format!("{value:.0}"),
            Self::Bytes if value >= 1e9 => format!("{} GB", digits(value / 1e9)),
            Self::Bytes if value >= 1e6 => format!("{} MB", digits(value / 1e6)),
            Self::Bytes => format!("{} kB", digits(value / 1e3)),
        }
    }
}

/// Two significant digits, three where there are as many before the point.
fn digits(value: f64) -> String {
    match value {
        value if value >= 99.5 || value == 0.0 => format!("{value:.0}"),
        value if value >= 9.95 => format!("{value:.0}"),
        value if value >= 0.995 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// From values to the steps of a colour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    log: bool,
}

impl Scale {
    /// Over all of these; none of nothing.
    pub(super) fn over(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values = values.into_iter().filter(|value| value.is_finite()).peekable();
        values.peek()?;
        let (low, high) = values
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        Some(Self { low, high, log: low > 0.0 && high / low > LOG_FROM })
    }

    /// With nothing in its way at the ends, for lines.
    pub(super) fn with_room(self) -> Self {
        let Self { low, high, log } = self;
        match log {
            true => Self { low: low / 1.3, high: high * 1.3, log },
            false => Self { low: 0.0, high: high * 1.15, log },
        }
    }

    /// Of what is counted: from none on, and a few are few.
    pub(super) fn of_counts(self) -> Self {
        Self { low: 0.0, high: self.high.max(FEW), log: false }
    }

    fn part(self, value: f64) -> f64 {
        let Self { low, high, log } = self;
        let part = match log {
            true => (value / low).ln() / (high / low).ln(),
            false => (value - low) / (high - low),
        };
        if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 }
    }

    fn step(self, value: f64) -> usize {
        (self.part(value) * (STEPS - 1) as f64).round() as usize
    }

    /// The value at a part of the way.
    fn at(self, part: f64) -> f64 {
        let Self { low, high, log } = self;
        if log { low * (high / low).powf(part) } else { low + (high - low) * part }
    }
}

/// What a tile shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tile {
    Value(f64),
    /// A word, and what stands behind it.
    Trouble(String, String),
    /// Not measured.
    Empty,
}

/// Tiles, rows from the top, each with its name.
pub(super) struct HeatMap<'a> {
    pub(super) title: &'a str,
    pub(super) across: (&'a str, Vec<String>),
    pub(super) down: (&'a str, Vec<String>),
    pub(super) tiles: Vec<Vec<Tile>>,
    pub(super) unit: Unit,
    pub(super) scale: Scale,
}

const TILE: (usize, usize) = (66, 34);
const LEFT: usize = 62;
const TOP: usize = 24;

impl HeatMap<'_> {
    pub(super) fn svg(&self) -> String {
        let (columns, rows) = (self.across.1.len(), self.down.1.len());
        let (body_width, body_height) = (columns * TILE.0, rows * TILE.1);
        let width = LEFT + body_width.max(4 * TILE.0) + 8;
        let height = TOP + body_height + 92;
        let title = escape(self.title);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
             aria-label=\"{title}\">\n"
        );
        for (at, name) in self.down.1.iter().enumerate() {
            let y = TOP + at * TILE.1 + TILE.1 / 2 + 4;
            text(&mut svg, LEFT - 8, y, "end", "tick", name);
        }
        for (at, name) in self.across.1.iter().enumerate() {
            let x = LEFT + at * TILE.0 + TILE.0 / 2;
            text(&mut svg, x, TOP + body_height + 16, "middle", "tick", name);
        }
        text(&mut svg, 0, TOP - 10, "start", "axis", self.down.0);
        text(&mut svg, LEFT, TOP + body_height + 34, "start", "axis", self.across.0);
        for (y, row) in self.tiles.iter().enumerate() {
            for (x, tile) in row.iter().enumerate() {
                self.tile(&mut svg, x, y, tile);
            }
        }
        self.legend(&mut svg, TOP + body_height + 50);
        svg + "</svg>\n"
    }

    fn tile(&self, svg: &mut String, column: usize, row: usize, tile: &Tile) {
        let (x, y) = (LEFT + column * TILE.0, TOP + row * TILE.1);
        let at = format!(
            "{} {}, {} {}",
            self.down.0, self.down.1[row], self.across.0, self.across.1[column]
        );
        let (class, shown, told) = match tile {
            Tile::Value(value) => {
                let shown = self.unit.short(*value);
                (format!("q{}", self.scale.step(*value)), shown.clone(), shown)
            }
            Tile::Trouble(word, told) => ("bad".into(), word.clone(), told.clone()),
            Tile::Empty => ("none".into(), "–".into(), "not measured".into()),
        };
        let (width, height) = (TILE.0 - 2, TILE.1 - 2);
        let told = escape(&format!("{at}: {told}"));
        write!(
            svg,
            "<g class=\"{class}\"><title>{told}</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" \
             height=\"{height}\" rx=\"3\"/>"
        )
        .expect("a string takes all");
        text(svg, x + width / 2, y + height / 2 + 4, "middle", "value", &shown);
        svg.push_str("</g>\n");
    }

    fn legend(&self, svg: &mut String, y: usize) {
        let step = 4 * TILE.0 / STEPS;
        for at in 0..STEPS {
            let x = LEFT + at * step;
            writeln!(
                svg,
                "<g class=\"q{at}\"><rect x=\"{x}\" y=\"{y}\" width=\"{step}\" height=\"10\"/></g>"
            )
            .expect("a string takes all");
        }
        let end = LEFT + STEPS * step;
        let marks =
            [(LEFT, "start", 0.0), (usize::midpoint(LEFT, end), "middle", 0.5), (end, "end", 1.0)];
        // A scale of one value has one mark.
        let marks = if self.scale.high > self.scale.low { &marks[..] } else { &marks[..1] };
        for (x, anchor, part) in marks {
            text(svg, *x, y + 24, anchor, "tick", &self.unit.short(self.scale.at(*part)));
        }
        let kind = if self.scale.log { "log scale" } else { "linear" };
        text(svg, LEFT - 8, y + 9, "end", "tick", kind);
    }
}

fn text(svg: &mut String, x: usize, y: usize, anchor: &str, class: &str, said: &str) {
    let said = escape(said);
    writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" class=\"{class}\">{said}</text>"
    )
    .expect("a string takes all");
}

/// A line and the points on it, in the colour of its class.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) class: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over one axis, both axes with room for wide spans.
pub(super) struct Curves<'a> {
    pub(super) title: &'a str,
    pub(super) across: &'a str,
    pub(super) series: Vec<Series>,
    /// Of the values.
    pub(super) scale: Scale,
    pub(super) unit: Unit,
    /// How a place on the axis across is written.
    pub(super) place: fn(f64) -> String,
}

const PLOT: (f64, f64) = (214.0, 190.0);
const PLOT_LEFT: f64 = 64.0;
const PLOT_TOP: f64 = 14.0;
/// Room for the names at the ends of the lines.
const NAMES: f64 = 92.0;
/// Lines of text are as far apart.
const NAME_HEIGHT: f64 = 14.0;

impl Curves<'_> {
    pub(super) fn svg(&self) -> String {
        let (width, height) = (PLOT_LEFT + PLOT.0 + NAMES, PLOT_TOP + PLOT.1 + 44.0);
        let title = escape(self.title);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
             aria-label=\"{title}\">\n"
        );
        self.grid(&mut svg);
        for series in &self.series {
            self.line(&mut svg, series);
        }
        self.names(&mut svg);
        svg + "</svg>\n"
    }

    /// Places across, rising, each once.
    fn places(&self) -> Vec<f64> {
        let all = self.series.iter().flat_map(|series| series.points.iter().map(|point| point.0));
        let mut places: Vec<_> = all.collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        places
    }

    /// By the logarithm, where 0 has a place too.
    fn x(&self, place: f64) -> f64 {
        let places = self.places();
        let first = places.first().copied().unwrap_or(0.0);
        let last = places.last().copied().unwrap_or(1.0);
        let (from, to) = (first.ln_1p(), last.ln_1p());
        let part = if to > from { (place.ln_1p() - from) / (to - from) } else { 0.5 };
        PLOT_LEFT + part * PLOT.0
    }

    fn y(&self, value: f64) -> f64 {
        PLOT_TOP + (1.0 - self.scale.part(value)) * PLOT.1
    }

    fn grid(&self, svg: &mut String) {
        for value in self.marks() {
            let (y, end) = (self.y(value), PLOT_LEFT + PLOT.0);
            writeln!(
                svg,
                "<line class=\"grid\" x1=\"{PLOT_LEFT}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            )
            .expect("a string takes all");
            let mark = self.unit.short(value);
            text(svg, (PLOT_LEFT - 6.0) as usize, (y + 4.0) as usize, "end", "tick", &mark);
        }
        let mut free = f64::MIN;
        for place in self.places() {
            let (x, bottom) = (self.x(place), PLOT_TOP + PLOT.1);
            // What has no room is left out.
            let mark = (self.place)(place);
            let half = 3.6 * mark.chars().count() as f64;
            if x - half > free {
                text(svg, x as usize, (bottom + 16.0) as usize, "middle", "tick", &mark);
                free = x + half + 4.0;
            }
        }
        let y = (PLOT_TOP + PLOT.1 + 36.0) as usize;
        text(svg, (PLOT_LEFT + PLOT.0 / 2.0) as usize, y, "middle", "axis", self.across);
    }

    /// Round values on the axis up: powers of ten, and their halves where there are few.
    fn marks(&self) -> Vec<f64> {
        let Scale { low, high, log } = self.scale;
        if !log {
            return (0..=4).map(|at| self.scale.at(f64::from(at) / 4.0)).collect();
        }
        let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
        let steps: &[f64] = if (high / low).log10() > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all =
            decades.flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
        all.filter(|mark| (low..=high).contains(mark)).collect()
    }

    fn line(&self, svg: &mut String, series: &Series) {
        let at = |(place, value): &(f64, f64)| (self.x(*place), self.y(*value));
        let path = series.points.iter().map(|point| {
            let (x, y) = at(point);
            format!("{x:.1},{y:.1}")
        });
        let path = path.collect::<Vec<_>>().join(" ");
        let class = &series.class;
        writeln!(svg, "<g class=\"{class}\"><polyline points=\"{path}\"/>")
            .expect("a string takes all");
        for point in &series.points {
            let (x, y) = at(point);
            let told = format!(
                "{}, {} {}: {}",
                series.name,
                self.across,
                (self.place)(point.0),
                self.unit.short(point.1)
            );
            let told = escape(&told);
            writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{told}</title></circle>"
            )
            .expect("a string takes all");
        }
        svg.push_str("</g>\n");
    }

    /// Beside the last points, apart from one another.
    fn names(&self, svg: &mut String) {
        let end =
            |series: &Series| series.points.last().map(|point| (self.x(point.0), self.y(point.1)));
        let mut names: Vec<_> =
            self.series.iter().filter_map(|series| Some((end(series)?, series))).collect();
        names.sort_by(|(a, _), (b, _)| a.1.total_cmp(&b.1));
        let below = NAME_HEIGHT * names.len() as f64;
        let mut free = f64::MIN;
        for (((_, y), series), left) in names.iter().zip((0..names.len()).rev()) {
            // As high as its point, below the name before, and with room for those that follow.
            let lowest = PLOT_TOP + PLOT.1 - NAME_HEIGHT * left as f64;
            let y = y.min(lowest).max(free).max(PLOT_TOP + NAME_HEIGHT - below.min(NAME_HEIGHT));
            free = y + NAME_HEIGHT;
            let x = PLOT_LEFT + PLOT.0 + 10.0;
            writeln!(
                svg,
                "<g class=\"{}\"><circle cx=\"{x}\" cy=\"{y:.1}\" r=\"4\"/></g>",
                series.class
            )
            .expect("a string takes all");
            text(svg, (x + 9.0) as usize, (y + 4.0) as usize, "start", "name", &series.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_span_is_told_by_its_logarithm_and_a_narrow_one_is_not() {
        let wide = Scale::over([1.0, 10_000.0]).unwrap();
        assert_eq!([1.0, 100.0, 10_000.0].map(|value| wide.step(value)), [0, 4, 8]);
        let narrow = Scale::over([0.0, 5.0]).unwrap();
        assert_eq!([0.0, 2.5, 5.0].map(|value| narrow.step(value)), [0, 4, 8]);
        assert_eq!(Scale::over([3.0]).unwrap().step(3.0), 0, "all alike");
        assert!(Scale::over([]).is_none());
    }

    #[test]
    fn little_room_is_enough_for_any_value() {
        let short = |unit: Unit, value| unit.short(value);
        assert_eq!(short(Unit::Millis, 0.421), "0.42 ms");
        assert_eq!(short(Unit::Millis, 1_423.0), "1.4 s");
        assert_eq!(short(Unit::Millis, 999.9), "1.0 s");
        assert_eq!(short(Unit::PerSecond, 68_478.0), "68k");
        assert_eq!(short(Unit::Count, 7.0), "7");
        assert_eq!(short(Unit::Bytes, 64e6), "64 MB");
    }

    #[test]
    fn names_at_the_ends_of_lines_do_not_overlap() {
        let series = |name: &str, value| Series {
            name: name.into(),
            class: "s0".into(),
            points: vec![(0.0, 1.0), (10.0, value)],
        };
        let curves = Curves {
            title: "t",
            across: "sync, ms",
            series: vec![
                series("a", 500.0),
                series("b", 501.0),
                series("c", 1.0),
                series("d", 1.0),
            ],
            scale: Scale::over([1.0, 501.0]).unwrap(),
            unit: Unit::Millis,
            place: |place| place.to_string(),
        };
        let mut svg = String::new();
        curves.names(&mut svg);
        let ys = svg.lines().filter(|line| line.starts_with("<text"));
        let ys = ys.map(|line| line.split("y=\"").nth(1).unwrap().split('"').next().unwrap());
        let mut ys: Vec<usize> = ys.map(|y| y.parse().unwrap()).collect();
        ys.sort_unstable();
        assert_eq!(ys.len(), 4);
        assert!(ys.windows(2).all(|two| two[1] - two[0] >= 13), "{ys:?}");
        assert!(*ys.last().unwrap() as f64 <= PLOT_TOP + PLOT.1 + 5.0, "{ys:?}");
    }
}
