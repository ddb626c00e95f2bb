import * as qosSpecs from '../db/qos-specs.ts'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import { withoutKey } from './metadata.ts'
import type { QosSpec } from './model.ts'
import type { Parts } from './parts.ts'
import { toPairs } from './rows.ts'
import type { QosSpecService } from './services.ts'
import { lockVisibleType } from './type-lookup.ts'
import { toListing } from './visibility.ts'

/** As many as one request may bring; together no more either. */
const SPECS_MAX = 128

/**
 * What volumes of a type are promised. A change holds for a volume from its next connection or retype on, as upstream: who is
 * connected keeps what was agreed. Locks: the specs, then a type.
 */
export function createQosSpecService({ db, random, stamp }: Pick<Parts, 'db' | 'random' | 'stamp'>): QosSpecService {
  function authorize(context: RequestContext, action: 'create' | 'get' | 'get_all' | 'update' | 'delete'): void {
    context.authorize(`volume_extension:qos_specs_manage:${action}`, { projectId: context.projectId })
  }

  /** Runs something with the specs, which nobody else changes meanwhile. */
  async function locked<T>(id: string, run: (trx: typeof db, row: qosSpecs.QosSpecRow) => Promise<T>): Promise<T> {
    return db.transaction(async (trx) => run(trx, found(id, await qosSpecs.lock(trx, id))))
  }

  return {
    create: async (context, { name, consumer, specs }) => {
      authorize(context, 'create')
      const row: qosSpecs.QosSpecRow = {
        id: random.uuid(),
        name,
        consumer,
        specs: JSON.stringify(specs),
        created_at: stamp(),
        updated_at: null,
      }
      if (!(await qosSpecs.insert(db, row))) throw new ServiceError('QoSSpecsExists', { specs_id: name })
      return toQosSpec(row)
    },
    get: async (context, id) => {
      authorize(context, 'get')
      return toQosSpec(found(id, await qosSpecs.find(db, id)))
    },
    list: async (context, query) => {
      authorize(context, 'get_all')
      const { rows, ...page } = await qosSpecs.list(db, toListing(context, query))
      return { ...page, items: rows.map(toQosSpec) }
    },
    setKeys: async (context, id, { consumer, specs }) => {
      authorize(context, 'update')
      await locked(id, async (trx, row) => {
        const all = { ...toPairs(row.specs), ...specs }
        if (Object.keys(all).length > SPECS_MAX) {
          throw new ServiceError('InvalidInput', { reason: `QoS specs have at most ${SPECS_MAX} keys.` })
        }
        const columns = { ...(consumer === null ? {} : { consumer }), specs: JSON.stringify(all) }
        await qosSpecs.update(trx, id, { ...columns, updated_at: stamp() })
      })
    },
    unsetKeys: async (context, id, keys) => {
      authorize(context, 'delete')
      const missing = await locked(id, async (trx, row) => {
        let specs = toPairs(row.specs)
        for (const key of keys) {
          const rest = withoutKey(specs, key)
          if (rest === null) return key
          specs = rest
          await qosSpecs.update(trx, id, { specs: JSON.stringify(specs), updated_at: stamp() })
        }
        return null
      })
      // As upstream: what was named before it is gone.
      if (missing !== null) throw new ServiceError('QoSSpecsKeyNotFound', { specs_id: id, specs_key: missing })
    },
    delete: async (context, id, { force }) => {
      authorize(context, 'delete')
      await locked(id, async (trx) => {
        if (!force && (await qosSpecs.typesOf(trx, id)).length > 0) {
          throw new ServiceError('InvalidInput', { reason: 'Qos specs still in use.' })
        }
        await qosSpecs.disassociateAll(trx, id)
        await qosSpecs.remove(trx, id)
      })
    },
    types: async (context, id) => {
      authorize(context, 'get_all')
      found(id, await qosSpecs.find(db, id))
      return qosSpecs.typesOf(db, id)
    },
    associate: async (context, id, typeId) => {
      authorize(context, 'update')
      await locked(id, async (trx) => {
        await lockVisibleType(trx, context, typeId)
        const present = await qosSpecs.ofType(trx, typeId)
        if (present === undefined) await qosSpecs.associate(trx, id, typeId)
        else if (present.id !== id) {
          const reason = `Type ${typeId} is already associated with another qos specs: ${present.id}`
          throw new ServiceError('InvalidVolumeType', { reason })
        }
      })
    },
    disassociate: async (context, id, typeId) => {
      authorize(context, 'update')
      await locked(id, async (trx) => {
        await lockVisibleType(trx, context, typeId)
        await qosSpecs.disassociate(trx, id, typeId)
      })
    },
    disassociateAll: async (context, id) => {
      authorize(context, 'update')
      await locked(id, (trx) => qosSpecs.disassociateAll(trx, id))
    },
  }
}

function found(id: string, row: qosSpecs.QosSpecRow | undefined): qosSpecs.QosSpecRow {
  if (row === undefined) throw new ServiceError('QoSSpecsNotFound', { specs_id: id })
  return row
}

function toQosSpec(row: qosSpecs.QosSpecRow): QosSpec {
  return { id: row.id, name: row.name, consumer: row.consumer, specs: toPairs(row.specs) }
}
