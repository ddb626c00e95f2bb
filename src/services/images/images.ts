import { ServiceError } from '../../errors.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Seal } from '../seal.ts'
import { beginFill, type Fill } from './fill.ts'
import type { Send } from './image-send.ts'
import type { Image, ImageService } from './image-service.ts'
import type { ImageSource } from './rules.ts'
import { beginSend } from './send.ts'
import type { Spool } from './spool.ts'
import { createTransfers, type Transfers } from './transfers.ts'

/** What the service needs to fill volumes with images, and to make images of them. */
export interface Images {
  service: ImageService
  spool: Spool
  /** Of the tokens that wait in the database for their work. */
  seal: Seal
  fills: Transfers<Fill>
  sends: Transfers<Send>
  beginFill(token: string, source: ImageSource, volumeGib: number): Promise<Fill | null>
  beginSend(...order: [Parameters<typeof beginSend>[1], Parameters<typeof beginSend>[2]]): Promise<Send | null>
  /** For one attempt: whether it should end, so that how far it came is written down. */
  timer(): () => boolean
}

export interface ImageOptions {
  service: ImageService
  spool: Spool
  seal: Seal
  /** Transfers each way at the same time. */
  transfersMax: number
  /** Of an attempt. */
  sliceMs: number
}

export function createImages(clock: Pick<Clock, 'timer' | 'monotonicMs'>, options: ImageOptions): Images {
  const { service, spool, seal, transfersMax, sliceMs } = options
  return {
    service,
    spool,
    seal,
    fills: createTransfers(clock, transfersMax),
    sends: createTransfers(clock, transfersMax),
    beginFill: (token, source, volumeGib) => beginFill({ service, spool }, token, source, volumeGib),
    beginSend: (order, source) => beginSend({ service, spool }, order, source),
    timer: () => {
      const endMs = clock.monotonicMs() + sliceMs
      return () => clock.monotonicMs() >= endMs
    },
  }
}

/** Throws InvalidInput when there is no image service; `what` it is that cannot be done. */
export function requireImages(images: Images | null, what: string): Images {
  if (images !== null) return images
  throw noImages(what)
}

export function noImages(what: string): ServiceError {
  return new ServiceError('InvalidInput', { reason: `${what}: no image service is set up.` })
}

/**
 * The image that `imageRef` names: by its id, by a URL that ends with that, or by its name. What goes wrong is told as upstream does,
 * in one way for all of it.
 */
export async function findImage({ service }: Images, token: string, imageRef: string): Promise<Image> {
  const id = imageRef.split('/').at(-1) ?? ''
  if (UUID.test(id)) {
    const image = await service.show(token, id).catch(() => null)
    if (image !== null) return image
  }
  const named = await service.named(token, imageRef).catch(() => [])
  if (named.length > 1) {
    const reason = `Multiple matches found for '${imageRef}', use an ID to be more specific.`
    throw new ServiceError('ResourceConflict', { reason })
  }
  if (named[0] !== undefined) return named[0]
  const reason = 'Invalid image identifier or unable to access requested image.'
  throw new ServiceError('InvalidInput', { reason })
}

const UUID = /^[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}$/i
