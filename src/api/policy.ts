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
  'volume:create_from_image': 'member',
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
  'volume_extension:volume_actions:reserve': 'member',
  'volume_extension:volume_actions:unreserve': 'member',
  'volume_extension:volume_actions:attach': 'member',
  'volume_extension:volume_actions:detach': 'member',
  'volume_extension:volume_actions:initialize_connection': 'member',
  'volume_extension:volume_actions:terminate_connection': 'member',
  'volume_extension:volume_admin_actions:reset_status': 'admin',
  'volume_extension:volume_admin_actions:force_delete': 'admin',
  'volume_extension:volume_admin_actions:force_detach': 'admin',
  'volume_extension:volume_admin_actions:migrate_volume': 'admin',
  'volume_extension:volume_admin_actions:migrate_volume_completion': 'admin',
  'volume_extension:volume_admin_actions:extend_volume_completion': 'admin',
  'volume_extension:volume_unmanage': 'admin',
  'volume_extension:volume_actions:upload_image': 'member',
  'volume_extension:volume_actions:upload_public': 'admin',
  'volume_extension:volume_image_metadata:show': 'reader',
  'volume_extension:volume_image_metadata:set': 'member',
  'volume_extension:volume_image_metadata:remove': 'member',
  'volume:revert_to_snapshot': 'member',
  'volume:retype': 'member',
  'volume:update_readonly_flag': 'member',
  'volume:reimage': 'member',
  'volume:reimage_reserved': 'member',
  'volume:create_snapshot': 'member',
  'volume:get_snapshot': 'reader',
  'volume:get_all_snapshots': 'reader',
  'volume:update_snapshot': 'member',
  'volume:delete_snapshot': 'member',
  'volume_extension:snapshot_admin_actions:reset_status': 'admin',
  'volume_extension:snapshot_admin_actions:force_delete': 'admin',
  'snapshot_extension:snapshot_actions:update_snapshot_status': 'member',
  'snapshot_extension:snapshot_unmanage': 'admin',
  'volume:get_snapshot_metadata': 'reader',
  'volume:update_snapshot_metadata': 'member',
  'volume:delete_snapshot_metadata': 'member',
  'volume:attachment_create': 'member',
  'volume:attachment_update': 'member',
  'volume:attachment_delete': 'member',
  'volume:attachment_complete': 'member',
  'volume:create_transfer': 'member',
  'volume:get_transfer': 'reader',
  'volume:get_all_transfers': 'reader',
  'volume:accept_transfer': 'member',
  'volume:delete_transfer': 'member',
  'group:create': 'member',
  'group:get': 'reader',
  'group:get_all': 'reader',
  'group:update': 'member',
  'group:group_project_attribute': 'admin',
  'group:delete': 'member',
  'group:reset_status': 'admin',
  'group:enable_replication': 'member',
  'group:disable_replication': 'member',
  'group:failover_replication': 'member',
  'group:list_replication_targets': 'member',
  'group:create_group_snapshot': 'member',
  'group:get_group_snapshot': 'reader',
  'group:get_all_group_snapshots': 'reader',
  'group:delete_group_snapshot': 'member',
  'group:reset_group_snapshot_status': 'admin',
  'group:group_snapshot_project_attribute': 'admin',
  'group:group_types:create': 'admin',
  'group:group_types:update': 'admin',
  'group:group_types:delete': 'admin',
  'group:access_group_types_specs': 'admin',
  'group:group_types_specs:get': 'admin',
  'group:group_types_specs:get_all': 'admin',
  'group:group_types_specs:create': 'admin',
  'group:group_types_specs:update': 'admin',
  'group:group_types_specs:delete': 'admin',
  'volume_extension:list_manageable': 'admin',
  'volume_extension:volume_manage': 'admin',
  'snapshot_extension:list_manageable': 'admin',
  'snapshot_extension:snapshot_manage': 'admin',
  'message:get': 'reader',
  'message:get_all': 'reader',
  'message:delete': 'member',
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
  'volume_extension:type_update': 'admin',
  'volume_extension:type_delete': 'admin',
  'volume_extension:types_extra_specs:index': 'reader',
  'volume_extension:types_extra_specs:show': 'reader',
  'volume_extension:types_extra_specs:create': 'admin',
  'volume_extension:types_extra_specs:update': 'admin',
  'volume_extension:types_extra_specs:delete': 'admin',
  'volume_extension:types_extra_specs:read_sensitive': 'admin',
  'volume_extension:volume_type_access': 'member',
  'volume_extension:volume_type_access:addProjectAccess': 'admin',
  'volume_extension:volume_type_access:removeProjectAccess': 'admin',
  'volume_extension:volume_type_access:get_all_for_type': 'admin',
  'volume_extension:volume_type_encryption:create': 'admin',
  'volume_extension:volume_type_encryption:get': 'admin',
  'volume_extension:volume_type_encryption:update': 'admin',
  'volume_extension:volume_type_encryption:delete': 'admin',
  'volume_extension:qos_specs_manage:create': 'admin',
  'volume_extension:qos_specs_manage:get': 'admin',
  'volume_extension:qos_specs_manage:get_all': 'admin',
  'volume_extension:qos_specs_manage:update': 'admin',
  'volume_extension:qos_specs_manage:delete': 'admin',
  'volume_extension:default_set_or_update': 'admin',
  'volume_extension:default_get': 'admin',
  'volume_extension:default_get_all': 'admin',
  'volume_extension:default_unset': 'admin',
  'volume_extension:quotas:show': 'reader',
  'volume_extension:quotas:update': 'admin',
  'volume_extension:quotas:delete': 'admin',
  'volume_extension:quota_classes:get': 'admin',
  'volume_extension:quota_classes:update': 'admin',
  'limits_extension:used_limits': 'reader',
  'scheduler_extension:scheduler_stats:get_pools': 'admin',
  'volume_extension:capabilities': 'admin',
  'volume_extension:services:index': 'admin',
  'volume_extension:services:update': 'admin',
  'volume:freeze_host': 'admin',
  'volume:thaw_host': 'admin',
  'volume:failover_host': 'admin',
  'volume_extension:hosts': 'admin',
  'clusters:get_all': 'admin',
  'clusters:get': 'admin',
  'clusters:update': 'admin',
  'workers:cleanup': 'admin',
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

/** Upstream does not say which rule these are. */
const UNNAMED: readonly Rule[] = [
  'volume_extension:default_set_or_update',
  'volume_extension:default_get',
  'volume_extension:default_get_all',
  'volume_extension:default_unset',
]

export function refusal(rule: Rule): ServiceError {
  return UNNAMED.includes(rule)
    ? new ServiceError('OperationNotAuthorized')
    : new ServiceError('PolicyNotAuthorized', { action: rule })
}

/** Throws a `refusal` unless the rule lets the caller act on something of that project. */
export function authorize(rule: string, caller: Caller, target: { projectId: string }): void {
  assert(isRule(rule), `no such policy rule: ${rule}`)
  if (!isAllowed(rule, caller, target)) throw refusal(rule)
}

function isRule(rule: string): rule is Rule {
  return Object.hasOwn(RULES, rule)
}
