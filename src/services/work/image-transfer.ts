import type { Db } from '../../db/database.ts'
import * as volumes from '../../db/volumes.ts'
import type { SnapshotRef, VolumeData } from '../../drivers/driver.ts'
import { ServiceError } from '../../errors.ts'
import type { ImageFormat } from '../images/formats.ts'
import { type Images, requireImages } from '../images/images.ts'
import type { ImageSource } from '../images/rules.ts'
import type { Transfer, Transfers } from '../images/transfers.ts'
import { snapshotRefOf } from '../refs.ts'
import { VOLUME_OUTCOMES } from '../volume-status.ts'
import { formatStep, parseStep, resumeTransfer, TRIES_MAX } from './image-steps.ts'
import type { Outcome, WorkParams, WorkUnit } from './kind.ts'

/** What the kinds of work have in common that move images. */

/** How long one waits whose turn it is not yet. */
const WAIT_MS = 1000

/** What work that fills a volume with an image knows of it. The token is the user's: it goes with the unit, sealed. */
export function fillParams({ seal }: Images, source: ImageSource, token: string): WorkParams {
  return { image: JSON.stringify(source), sealedToken: seal.seal(token) }
}

const sourceOf = ({ params }: WorkUnit): ImageSource => JSON.parse(String(params.image))

/** Throws ServiceUnavailable when it was sealed elsewhere. */
export function tokenOf({ seal }: Images, { params }: WorkUnit): string {
  // A unit of a version that did not seal them has it as it is.
  return params.sealedToken === undefined ? String(params.token) : seal.open(String(params.sealedToken))
}

/** The first step of a fill, and the one at which it begins anew. */
export const FILL = 'download'

export const isFilling = (step: string): boolean => ['download', 'convert'].includes(parseStep(step).phase)
export const resumeFill = (step: string): string => (isFilling(step) ? resumeTransfer(step, FILL) : step)

/** Fills a volume with the image of its unit, a part at each attempt. Null when it holds all of it. */
export async function fillSome(
  configured: Images | null,
  unit: WorkUnit,
  volume: { sizeGib: number; open(): Promise<VolumeData> },
): Promise<Outcome | null> {
  const images = requireImages(configured, 'Images cannot be downloaded')
  const source = sourceOf(unit)
  return transferSome(unit, FILL, {
    transfers: images.fills,
    open: volume.open,
    begin: () => images.beginFill(tokenOf(images, unit), source, volume.sizeGib),
    advance: (fill, data) => fill.advance(data, images.timer()),
    progress: (fill) => fill.progress(),
    broken: (reason) => new ServiceError('ImageDownloadFailed', { image_id: source.id, reason }),
  })
}

/** One attempt at a transfer, which goes on where the last one ended or begins. Null when it is done. */
export async function transferSome<T extends Transfer>(
  unit: WorkUnit,
  firstPhase: string,
  of: {
    transfers: Transfers<T>
    open(): Promise<VolumeData>
    begin(data: VolumeData): Promise<T | null>
    advance(transfer: T, data: VolumeData): Promise<boolean>
    progress(transfer: T): { phase?: string; doneBytes: number; totalBytes: number }
    broken(reason: string): ServiceError
  },
): Promise<Outcome | null> {
  const { transfers } = of
  const key = `${unit.id}/${unit.fence}`
  const wait = { next: unit.step, afterMs: WAIT_MS, commit: async () => {} }
  let { tries, hasBegun } = parseStep(unit.step)
  let transfer = transfers.take(key)
  if (transfer === null) {
    if (hasBegun && tries >= TRIES_MAX) throw of.broken(unit.lastError ?? `it broke off ${tries} times`)
    if (!transfers.begin()) return wait
    if (hasBegun) tries++
  }
  let isDone: boolean
  try {
    const data = await of.open()
    try {
      transfer ??= await of.begin(data)
      isDone = transfer !== null && (await of.advance(transfer, data))
    } finally {
      await data.close()
    }
  } catch (error) {
    await transfers.drop(transfer)
    throw error
  }
  if (transfer === null || isDone) await transfers.drop(transfer)
  if (transfer === null) return wait
  if (isDone) return null
  const { phase = firstPhase, ...progress } = of.progress(transfer)
  await transfers.putBack(key, transfer)
  return { next: formatStep(phase, tries, progress), commit: async () => {} }
}

/** What a volume has from the image that it now holds. */
export function filledColumns(unit: WorkUnit) {
  return { bootable: true, image_metadata: JSON.stringify(sourceOf(unit).metadata), status_reason: null }
}

/** Whatever it holds now is of no use to anybody. */
export async function failFill(trx: Db, unit: WorkUnit, error: ServiceError, updatedAt: string): Promise<void> {
  const set = { status_reason: error.message, placement: null }
  await volumes.compareAndSet(trx, unit.resourceId, { ...VOLUME_OUTCOMES.fillFailed, updatedAt, set })
}

/** What work that makes an image of a volume knows of it. */
export function uploadParams({ seal }: Images, volumeId: string, format: ImageFormat, token: string): WorkParams {
  return { volumeId, format, sealedToken: seal.seal(token) }
}

/** The snapshot that an upload reads, under the id of the image: so whoever has the unit can find it. */
export function frozenAs(imageId: string, row: volumes.VolumeRow): SnapshotRef {
  return snapshotRefOf({ id: imageId, size_gib: row.size_gib }, row)
}
