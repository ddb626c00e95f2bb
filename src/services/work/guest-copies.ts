import type { VolumeData, VolumeRef } from '../../drivers/driver.ts'
import type { Backends } from '../backends.ts'
import { using } from '../using.ts'
import { unlock } from './encrypted-volume.ts'
import { copyGuestData, fitsInto, type GuestData } from './guest-copy.ts'

/** A volume as its guest sees it. */
export interface GuestVolume {
  /** Says which backend has it. */
  host: string
  volume: VolumeRef
  /** Null: it is not encrypted. */
  passphrase: string | null
}

export interface GuestCopyStep {
  source: GuestVolume
  copy: GuestVolume
  /** Bytes; to begin with. */
  offset: number
}

/** The steps of a retype between ways of encryption that move bytes; see VolumeCopies. */
export interface GuestCopies {
  /** Copies for a while. What was copied is durable. Fails with BackendFailure when a volume cannot be unlocked. */
  copyGuest(step: GuestCopyStep): Promise<{ reached: number; isDone: boolean }>
}

export function createGuestCopies({ backends }: { backends: Backends }): GuestCopies {
  return {
    copyGuest: async ({ source, copy, offset }) =>
      using(await openGuest(backends, source), async (from) =>
        using(await openGuest(backends, copy), async (to) => {
          const reached = await copyGuestData(from, to, offset)
          return { reached, isDone: reached === to.sizeBytes }
        }),
      ),
  }
}

/** Whether what the guest sees would be whole in a volume of the same size that begins with a header of `headerBytes`. */
export async function fitsBehindHeader(
  backends: Backends,
  { host, volume, passphrase }: GuestVolume,
  headerBytes: number,
): Promise<boolean> {
  const data = await backends.driverOf(host).openVolume(volume)
  const roomBytes = data.sizeBytes - headerBytes
  return using(await guestOf(data, passphrase), (guest) => fitsInto(guest, roomBytes))
}

async function openGuest(backends: Backends, { host, volume, passphrase }: GuestVolume): Promise<GuestData> {
  return guestOf(await backends.driverOf(host).openVolume(volume), passphrase)
}

const guestOf = async (data: VolumeData, passphrase: string | null): Promise<GuestData> =>
  passphrase === null ? data : unlock(data, passphrase)
