/**
 * Steps of a transfer, as they stand in the row: `download@120/500`, with what is done and what there is in MiB; `#2` once it had
 * to begin anew.
 */
const MIB = 1024 * 1024
const STEP = /^(?<phase>[a-z]+)(?:@(?<done>\d+)\/\d+)?(?:#(?<tries>\d+))?$/

/** Transfers that broke off before it is given up. An outage that keeps them from beginning at all is none. */
export const TRIES_MAX = 3

export interface TransferStep {
  phase: string
  tries: number
  /** Whether some of it was done, by this process or another. */
  hasBegun: boolean
}

export function parseStep(step: string): TransferStep {
  const { phase = step, done, tries = '1' } = STEP.exec(step)?.groups ?? {}
  return { phase, tries: Number(tries), hasBegun: done !== undefined }
}

export function formatStep(phase: string, tries: number, progress?: { doneBytes: number; totalBytes: number }): string {
  const share = progress && `@${Math.floor(progress.doneBytes / MIB)}/${Math.ceil(progress.totalBytes / MIB)}`
  return `${phase}${share ?? ''}${tries > 1 ? `#${tries}` : ''}`
}

/** Where a unit goes on whose process is gone: from zero. That it ended is no fault of the transfer. */
export function resumeTransfer(step: string, first: string): string {
  const { hasBegun, tries } = parseStep(step)
  return hasBegun ? formatStep(first, tries) : step
}
