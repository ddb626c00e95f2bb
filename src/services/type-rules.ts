import type { Db } from '../db/database.ts'
import * as typeEncryptions from '../db/type-encryptions.ts'
import { invalidInput, ServiceError } from '../errors.ts'
import { refuseCopies } from '../scheduler/copies.ts'

/** What a type demands of a volume that is made with it, or is given it later. */

/** Whether volumes of a type can be attached several times. */
export function isShared(extraSpecs: Readonly<Record<string, string>>): boolean {
  return extraSpecs.multiattach === '<is> True'
}

export async function isEncrypted(db: Db, typeId: string): Promise<boolean> {
  return (await typeEncryptions.ofType(db, typeId)) !== undefined
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
