import type { Db } from '../db/database.ts'
import * as typeEncryptions from '../db/type-encryptions.ts'
import type { VolumeTypeRow } from '../db/volume-types.ts'
import { invalidInput, ServiceError } from '../errors.ts'
import { refuseCopies } from '../scheduler/copies.ts'

/** What a type demands of a volume that is made with it, or is given it later. */

/** Whether volumes of a type can be attached several times. */
export function isShared(extraSpecs: Readonly<Record<string, string>>): boolean {
  return extraSpecs.multiattach === '<is> True'
}

/** Nothing here keeps keys, and a volume that its type calls encrypted must not be made in the clear. */
export async function refuseEncrypted(trx: Db, type: VolumeTypeRow, multiattach: boolean): Promise<void> {
  if ((await typeEncryptions.ofType(trx, type.id)) === undefined) return
  if (multiattach) {
    throw new ServiceError('InvalidVolume', { reason: 'Multiattach cannot be used with encrypted volumes.' })
  }
  const reason = 'Key manager error: no key manager is set up, so no volume of an encrypted type can be made.'
  throw new ServiceError('InvalidInput', { reason })
}

/** `provisioning:min_vol_size` and `provisioning:max_vol_size` of a type bound every size a volume of it takes. */
export function checkTypeBounds(sizeGib: number, typeName: string, extraSpecs: Readonly<Record<string, string>>): void {
  const minGib = extraSpecs['provisioning:min_vol_size']
  if (minGib && sizeGib < Number(minGib)) {
    throw invalidInput(
      `Specified volume size of '${sizeGib}' is less than the minimum required size of '${minGib}' ` +
        `for volume type '${typeName}'.`,
    )
  }
  const maxGib = extraSpecs['provisioning:max_vol_size']
  if (maxGib && sizeGib > Number(maxGib)) {
    throw invalidInput(
      `Specified volume size of '${sizeGib}' is greater than the maximum allowable size of '${maxGib}' ` +
        `for volume type '${typeName}'.`,
    )
  }
}

/** Upstream takes every value of an extra spec, so that what means nothing is told who would have a volume by it. */
export function checkTypeCopies(typeName: string, extraSpecs: Readonly<Record<string, string>>): void {
  const refusal = refuseCopies(extraSpecs)
  if (refusal === null) return
  throw new ServiceError('InvalidVolumeType', { reason: `no volume can be of type '${typeName}': ${refusal}.` })
}
