/**
 * How fast one export may go; what is not named has no limit. All that are named hold at the same time: of a read, those in all
 * and those of reads. The store keeps them with the right and does not look into them; every gateway honours them.
 */
export interface ExportLimits {
  totalIops?: Rate
  readIops?: Rate
  writeIops?: Rate
  totalBytes?: Rate
  readBytes?: Rate
  writeBytes?: Rate
}

export interface Rate {
  /** What is kept up for any length of time; above 0. */
  perSecond: number
  /** What goes for a while after a rest; at least `perSecond`. */
  burstPerSecond?: number
  /** For how long it does so; 1 when absent. */
  burstSeconds?: number
}

export const LIMITS = ['totalIops', 'readIops', 'writeIops', 'totalBytes', 'readBytes', 'writeBytes'] as const

/** Limits as they are in a record, whoever wrote it: what means nothing limits nothing. Null when nothing is limited. */
export function readLimits(value: unknown): ExportLimits | null {
  if (typeof value !== 'object' || value === null) return null
  const limits: ExportLimits = {}
  for (const name of LIMITS) {
    const rate = readRate((value as Record<string, unknown>)[name])
    if (rate !== null) limits[name] = rate
  }
  return Object.keys(limits).length > 0 ? limits : null
}

function readRate(value: unknown): Rate | null {
  if (typeof value !== 'object' || value === null) return null
  const { perSecond, burstPerSecond, burstSeconds } = value as Record<string, unknown>
  if (!isPositive(perSecond)) return null
  if (!isPositive(burstPerSecond) || burstPerSecond <= perSecond) return { perSecond }
  return { perSecond, burstPerSecond, burstSeconds: isPositive(burstSeconds) ? burstSeconds : 1 }
}

function isPositive(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value > 0
}
