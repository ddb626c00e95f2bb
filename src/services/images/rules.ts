import { invalidInput, ServiceError } from '../../errors.ts'
import { IMAGE_FORMATS, type ImageFormat } from './formats.ts'
import type { Image, ImageHash } from './image-service.ts'

/** What images have to be, and what volumes keep of them. Pure; messages as upstream's. */

/** The property of an image under which the key is that its bytes open with, and the one that says what becomes of that. */
export const IMAGE_KEY = 'cinder_encryption_key_id'
export const KEY_DELETION = 'cinder_encryption_key_deletion_policy'

const GIB = 1024 ** 3

/** Formats whose bytes are those of the disk, besides raw. */
const AS_RAW: readonly (string | null)[] = ['iso', 'ami']

/** What a volume is filled with: what work has to know of an image, kept in its row. */
export interface ImageSource {
  id: string
  format: ImageFormat
  sizeBytes: number
  checksum: string | null
  hash: ImageHash | null
  /** Its bytes are those of an encrypted volume; absent in what older versions have kept. */
  isEncrypted?: boolean
  /** What the volume keeps of it. */
  metadata: Record<string, string>
}

/** Throws InvalidInput or ImageUnacceptable unless a volume of that size can be made from the image. */
export function checkedSource(image: Image, volumeGib: number): ImageSource {
  if (image.status !== 'active') throw invalidInput(`Image ${image.id} is not active.`)
  const sizeBytes = image.sizeBytes ?? 0
  const sizeGib = Math.ceil(sizeBytes / GIB)
  if (sizeGib > volumeGib) {
    throw invalidInput(`Size of specified image ${sizeGib}GB is larger than volume size ${volumeGib}GB.`)
  }
  if (volumeGib < image.minDiskGib) {
    throw invalidInput(
      `Volume size ${volumeGib}GB cannot be smaller than the image minDisk size ${image.minDiskGib}GB.`,
    )
  }
  if (image.virtualSizeBytes !== null) checkVirtualSize(image.id, image.virtualSizeBytes, volumeGib)
  if (image.containerFormat === 'compressed') {
    throw unacceptable(image.id, 'Image compression disallowed, but container_format is compressed.')
  }
  const format = AS_RAW.includes(image.diskFormat) ? 'raw' : IMAGE_FORMATS.find((known) => known === image.diskFormat)
  if (format === undefined) {
    const known = IMAGE_FORMATS.join(', ')
    throw unacceptable(
      image.id,
      `its disk format is ${image.diskFormat}; only these can be written to a volume: ${known}`,
    )
  }
  if (sizeBytes === 0) throw unacceptable(image.id, 'it has no content')
  const { id, checksum, hash } = image
  const isEncrypted = image.properties[IMAGE_KEY] !== undefined
  return { id, format, sizeBytes, checksum, hash, isEncrypted, metadata: metadataOf(image) }
}

export function checkVirtualSize(imageId: string, virtualSizeBytes: number, volumeGib: number): void {
  const virtualGib = Math.ceil(virtualSizeBytes / GIB)
  if (virtualGib <= volumeGib) return
  throw unacceptable(
    imageId,
    `Image virtual size is ${virtualGib}GB and doesn't fit in a volume of size ${volumeGib}GB.`,
  )
}

/** `volume_image_metadata` of a volume that is made from the image. */
function metadataOf(image: Image): Record<string, string> {
  const base = {
    image_name: image.name,
    checksum: image.checksum,
    container_format: image.containerFormat,
    disk_format: image.diskFormat,
    min_disk: String(image.minDiskGib),
    min_ram: String(image.minRamMib),
    size: String(image.sizeBytes ?? 0),
  }
  const known = Object.entries(base).filter((entry): entry is [string, string] => Boolean(entry[1]))
  return { ...image.properties, image_id: image.id, ...Object.fromEntries(known) }
}

/** What an image says of itself anyway, as upstream's `glance_core_properties`. */
const CORE_PROPERTIES: ReadonlySet<string> = new Set([
  'checksum',
  'container_format',
  'disk_format',
  'image_name',
  'image_id',
  'min_disk',
  'min_ram',
  'name',
  'size',
  'visibility',
  'protected',
])
/** Of another image; its key goes when that goes. */
const KEY_PROPERTIES: ReadonlySet<string> = new Set([IMAGE_KEY, KEY_DELETION])
/** Properties of the image service's own, which nobody else may write. */
const RESERVED_PREFIXES = ['os_glance', 'img_signature', 'signature_verified']

/** What of `volume_image_metadata` goes on to an image that is made of the volume. */
export function uploadedProperties(metadata: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(metadata).filter(
      ([key]) =>
        !CORE_PROPERTIES.has(key) &&
        !KEY_PROPERTIES.has(key) &&
        !RESERVED_PREFIXES.some((prefix) => key.startsWith(prefix)),
    ),
  )
}

/**
 * The snapshot that an image of Nova's stands for: one of an instance that boots from a volume has no content, and names the
 * snapshot of that volume instead.
 */
export function bootSnapshotOf(image: Image): { id: string; sizeGib: number | null } | null {
  const devices = parseJson(image.properties.block_device_mapping)
  if (!Array.isArray(devices)) return null
  for (const device of devices as Record<string, unknown>[]) {
    if (device?.source_type !== 'snapshot' || device.boot_index !== 0) continue
    const { snapshot_id: id, volume_size: sizeGib } = device
    if (typeof id === 'string') return { id, sizeGib: typeof sizeGib === 'number' ? sizeGib : null }
  }
  return null
}

function parseJson(text: string | undefined): unknown {
  try {
    return text === undefined ? null : JSON.parse(text)
  } catch {
    return null
  }
}

export function unacceptable(imageId: string, reason: string): ServiceError {
  return new ServiceError('ImageUnacceptable', { image_id: imageId, reason })
}
