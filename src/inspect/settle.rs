//! What of a look stays: a member may write while it is being looked at.

use super::{Damage, Report};
use crate::limits::INSPECT_LOOKS_MAX;

/// Looks until nothing is damaged or all that is was damaged in the look before too, with a pause
/// between looks. After the last look, what was not there in the one before is called being written.
///
/// # Errors
/// Those of the looks.
pub fn settle(
    mut look: impl FnMut() -> Result<Report, String>,
    pause: impl Fn(),
) -> Result<Report, String> {
    let mut report = look()?;
    for left in (0..INSPECT_LOOKS_MAX - 1).rev() {
        if report.damage.is_empty() {
            return Ok(report);
        }
        pause();
        let before = std::mem::replace(&mut report, look()?).damage;
        let stays = |damage: &Damage| before.iter().any(|other| other.same_place(damage));
        let fleeting = report.damage.iter().any(|damage| !stays(damage));
        if !fleeting {
            return Ok(report);
        }
        if left == 0 {
            let all = std::mem::take(&mut report.damage);
            (report.damage, report.being_written) = all.into_iter().partition(stays);
        }
    }
    Ok(report)
}
