import assert from 'node:assert/strict'
import type { VolumeData } from '../../drivers/driver.ts'
import { ServiceError } from '../../errors.ts'
import { formatLuks, LuksError } from '../../luks/luks1.ts'
import { openPlain, type PlainVolume } from '../../luks/plain-data.ts'
import type { HeaderOrder } from '../keys/volume-keys.ts'
import type { Parts } from '../parts.ts'
import type { WorkUnit } from './kind.ts'

/** What work does with volumes that are encrypted. Whoever attaches one finds it formatted: over NBD a hypervisor would not do that itself. */

/** Whether the volume of the unit is to get a header of its own. */
export const needsHeader = ({ params }: WorkUnit): boolean => params.sealedHeader !== undefined

/** What opens the volume with the header that the unit writes; null when it writes none. */
export const passphraseOf = (keys: Parts['keys'], unit: WorkUnit): string | null =>
  needsHeader(unit) ? orderOf(keys, unit).passphrase : null

/** Writes the header. A repeat writes another one, so nothing may be in the volume yet that is to last. */
export async function writeHeader(
  { keys, random }: Pick<Parts, 'keys' | 'random'>,
  unit: WorkUnit,
  open: () => Promise<VolumeData>,
): Promise<void> {
  const header = await formatLuks(orderOf(keys, unit), random)
  const data = await open()
  try {
    await data.write(0, header)
    await data.flush()
  } finally {
    await data.close()
  }
}

/** The volume as work on its content sees it: in the clear when the unit wrote its header. */
export function opener(
  { keys }: Pick<Parts, 'keys'>,
  unit: WorkUnit,
  open: () => Promise<VolumeData>,
): () => Promise<VolumeData> {
  const passphrase = passphraseOf(keys, unit)
  return passphrase === null ? open : async () => unlock(await open(), passphrase)
}

/** In the clear. What cannot be unlocked is closed. */
export async function unlock(data: VolumeData, passphrase: string): Promise<PlainVolume> {
  try {
    return await openPlain(data, passphrase)
  } catch (error) {
    await data.close()
    if (!(error instanceof LuksError)) throw error
    const reason = `the LUKS header of the volume cannot be used: ${error.message}`
    throw new ServiceError('BackendFailure', { reason }, { cause: error })
  }
}

function orderOf(keys: Parts['keys'], { params }: WorkUnit): HeaderOrder {
  assert(keys !== null, 'what was sealed here was sealed with a seal')
  return JSON.parse(keys.seal.open(String(params.sealedHeader)))
}
