import type { Clock } from '../runtime/clock.ts'
import type { Backends } from './backends.ts'
import { type BackupCopies, createBackupCopies } from './backup/copies.ts'
import type { BackupTarget } from './backup/target.ts'
import { createGuestCopies, type GuestCopies } from './work/guest-copies.ts'

/**
 * The steps of work that move the bytes of volumes and have the processor reckon with each of them. What they are told and what they
 * answer is plain data, since they are done on another thread than that of whoever asks (src/volume-copy-thread.ts): megabytes that pass
 * through a heap as large as that of the service have it collected again and again, and hold its requests up.
 *
 * They fail with a ServiceError, and may be repeated.
 */
export interface VolumeCopies extends BackupCopies, GuestCopies {}

/** Copies on the thread that asks. */
export function createVolumeCopies(parts: {
  backends: Backends
  /** Where backups are: asked for by their steps, so that no other one needs it. */
  target: () => Promise<BackupTarget>
  clock: Pick<Clock, 'monotonicMs' | 'timer'>
}): VolumeCopies {
  return { ...createBackupCopies(parts), ...createGuestCopies(parts) }
}
