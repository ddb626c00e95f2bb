import type { Route } from '../../src/api/route.ts'
import { defaultTypeRoutes } from '../../src/api/v3/default-types.ts'
import { quotaRoutes } from '../../src/api/v3/quotas.ts'
import { typeAccessRoutes } from '../../src/api/v3/type-access.ts'
import { typeEncryptionRoutes } from '../../src/api/v3/type-encryption.ts'
import { typeExtraSpecRoutes } from '../../src/api/v3/type-extra-specs.ts'
import { typeRoutes } from '../../src/api/v3/types.ts'
import { OTHER_PROJECT, PROJECT } from './harness.ts'

/** The operations of types and quotas. */
export const ROUTES = [
  ...typeRoutes,
  ...typeExtraSpecRoutes,
  ...typeAccessRoutes,
  ...typeEncryptionRoutes,
  ...defaultTypeRoutes,
  ...quotaRoutes,
]

export const ENCRYPTION = { provider: 'luks', control_location: 'front-end' }

/** What is below the action, or the whole body, of a request that is right; the other operations take none. */
export const RIGHT: Record<string, unknown> = {
  create_type: { volume_type: { name: 'made' } },
  update_type: { volume_type: { description: 'new' } },
  create_type_extra_specs: { extra_specs: { multiattach: '<is> False' } },
  update_type_extra_spec: { multiattach: '<is> False' },
  add_type_access: { project: PROJECT },
  remove_type_access: { project: OTHER_PROJECT },
  create_type_encryption: { encryption: ENCRYPTION },
  update_type_encryption: { encryption: ENCRYPTION },
  set_project_default_type: { default_type: { volume_type: '__DEFAULT__' } },
  update_quota_set: { quota_set: { volumes: 5 } },
  update_quota_class_set: { quota_class_set: { snapshots: 5 } },
}

/** The body with that content. */
export function bodyOf({ action }: Route, content: unknown): unknown {
  return action === null ? content : { [action]: content ?? null }
}
