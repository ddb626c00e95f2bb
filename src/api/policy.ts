import assert from 'node:assert/strict'
import { ServiceError } from '../errors.ts'

/**
 * Who may do what: Cinder's rule names with its default checks (the secure RBAC personas, `enforce_new_defaults`). Paths
 * are not repeated here: a route names its rule, and the OpenAPI document joins the two.
 *
 * reader: role reader, member: role member, in the project that owns the target; admin: role admin, in any project.
 */
export type Check = 'reader' | 'member' | 'admin'

export const RULES = {
  'volume:create': 'member',
  'volume:get': 'reader',
  'volume:get_all': 'reader',
  'volume:update': 'member',
  'volume:delete': 'member',
  'volume:force_delete': 'admin',
  'volume:extend': 'member',
  'volume:extend_attached_volume': 'member',
  'volume:multiattach': 'member',
  'volume:multiattach_bootable_volume': 'member',
  'volume:get_volume_metadata': 'reader',
  'volume:create_volume_metadata': 'member',
  'volume:update_volume_metadata': 'member',
  'volume:delete_volume_metadata': 'member',
  'volume_extension:volume_encryption_metadata': 'reader',
  'volume_extension:volume_actions:begin_detaching': 'member',
  'volume_extension:volume_actions:roll_detaching': 'member',
  'volume_extension:volume_admin_actions:reset_status': 'admin',
  'volume_extension:volume_admin_actions:force_delete': 'admin',
  'volume:create_snapshot': 'member',
  'volume:get_snapshot': 'reader',
  'volume:get_all_snapshots': 'reader',
  'volume:update_snapshot': 'member',
  'volume:delete_snapshot': 'member',
  'volume:get_snapshot_metadata': 'reader',
  'volume:update_snapshot_metadata': 'member',
  'volume:delete_snapshot_metadata': 'member',
  'volume:attachment_create': 'member',
  'volume:attachment_update': 'member',
  'volume:attachment_delete': 'member',
  'volume:attachment_complete': 'member',
  'backup:create': 'member',
  'backup:get': 'reader',
  'backup:get_all': 'reader',
  'backup:update': 'member',
  'backup:delete': 'member',
  'backup:restore': 'member',
  'backup:backup-import': 'admin',
  'backup:export-import': 'admin',
  'backup:backup_project_attribute': 'admin',
  'volume_extension:backup_admin_actions:reset_status': 'admin',
  'volume_extension:backup_admin_actions:force_delete': 'admin',
  'volume_extension:type_get': 'reader',
  'volume_extension:type_get_all': 'reader',
  'volume_extension:type_create': 'admin',
  'volume_extension:type_delete': 'admin',
  'volume_extension:types_extra_specs:read_sensitive': 'admin',
  'limits_extension:used_limits': 'reader',
} as const satisfies Record<string, Check>

export type Rule = keyof typeof RULES

/** Roles imply each other downwards, as Keystone expands them in a token; a token that lists them all is the same. */
const ROLES: Record<Check, readonly string[]> = {
  reader: ['reader', 'member', 'admin'],
  member: ['member', 'admin'],
  admin: ['admin'],
}

export interface Caller {
  projectId: string
  roles: readonly string[]
}

export function isAllowed(rule: string, caller: Caller, target: { projectId: string }): boolean {
  assert(isRule(rule), `no such policy rule: ${rule}`)
  if (caller.roles.includes('admin')) return true
  return caller.projectId === target.projectId && ROLES[RULES[rule]].some((role) => caller.roles.includes(role))
}

/** Throws PolicyNotAuthorized unless the rule lets the caller act on something of that project. */
export function authorize(rule: string, caller: Caller, target: { projectId: string }): void {
  if (!isAllowed(rule, caller, target)) throw new ServiceError('PolicyNotAuthorized', { action: rule })
}

function isRule(rule: string): rule is Rule {
  return Object.hasOwn(RULES, rule)
}
