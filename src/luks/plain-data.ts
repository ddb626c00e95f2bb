import assert from 'node:assert/strict'
import type { DataExtent, VolumeData } from '../drivers/driver.ts'
import { decryptSectors, encryptSectors, SECTOR_BYTES } from './cipher.ts'
import { LuksError, type MasterKey, PAYLOAD_OFFSET_BYTES, unlockLuks } from './luks1.ts'

/** So much is encrypted at a time when zeros are written. */
const ZEROS_BYTES = 1024 * 1024

/** What a guest sees of an encrypted volume: what follows the header, in the clear. */
export interface PlainVolume extends VolumeData {
  /** As `extents`, but that a `hole` is what was never written, and reads as noise. */
  written(offset: number, lengthBytes: number): Promise<DataExtent[]>
}

/**
 * Never written sectors of the volume read as noise, so of its extents nothing counts as a hole. Writes to parts of one sector must not
 * run at the same time. Closing it closes the volume.
 */
export async function openPlain(volume: VolumeData, passphrase: string): Promise<PlainVolume> {
  const head = Buffer.alloc(Math.min(PAYLOAD_OFFSET_BYTES, volume.sizeBytes))
  await volume.read(0, head)
  return new PlainData(volume, await unlockLuks(head, passphrase))
}

class PlainData implements PlainVolume {
  readonly sizeBytes: number
  readonly startsAsZeros = false
  readonly #volume: VolumeData
  readonly #master: MasterKey

  constructor(volume: VolumeData, master: MasterKey) {
    if (master.payloadOffset > volume.sizeBytes) throw new LuksError('its header is larger than the volume')
    this.#volume = volume
    this.#master = master
    this.sizeBytes = volume.sizeBytes - master.payloadOffset
  }

  async extents(offset: number, lengthBytes: number) {
    assert(offset + lengthBytes <= this.sizeBytes)
    return lengthBytes === 0 ? [] : [{ lengthBytes, kind: 'data' as const }]
  }

  written(offset: number, lengthBytes: number) {
    return this.#volume.extents(this.#master.payloadOffset + offset, lengthBytes)
  }

  async read(offset: number, target: Buffer): Promise<void> {
    const first = floor(offset)
    const sectors = await this.#readSectors(first, ceil(offset + target.length) - first)
    sectors.copy(target, 0, offset - first)
  }

  async write(offset: number, source: Buffer): Promise<void> {
    assert(offset + source.length <= this.sizeBytes, 'it would go beyond the volume')
    const [first, end] = [floor(offset), ceil(offset + source.length)]
    const isWhole = first === offset && end === offset + source.length
    const sectors = isWhole ? Buffer.from(source) : await this.#readSectors(first, end - first)
    if (!isWhole) source.copy(sectors, offset - first)
    const { cipher, key, payloadOffset } = this.#master
    encryptSectors(cipher, key, first / SECTOR_BYTES, sectors)
    await this.#volume.write(payloadOffset + first, sectors)
  }

  async discard(offset: number, lengthBytes: number): Promise<void> {
    const end = offset + lengthBytes
    for (let at = offset; at < end; at += ZEROS_BYTES) {
      await this.write(at, Buffer.alloc(Math.min(ZEROS_BYTES, end - at)))
    }
  }

  flush(): Promise<void> {
    return this.#volume.flush()
  }

  close(): Promise<void> {
    return this.#volume.close()
  }

  async #readSectors(first: number, lengthBytes: number): Promise<Buffer> {
    const { cipher, key, payloadOffset } = this.#master
    const sectors = Buffer.alloc(lengthBytes)
    await this.#volume.read(payloadOffset + first, sectors)
    decryptSectors(cipher, key, first / SECTOR_BYTES, sectors)
    return sectors
  }
}

const floor = (offset: number): number => offset - (offset % SECTOR_BYTES)
const ceil = (offset: number): number => floor(offset + SECTOR_BYTES - 1)
