import assert from 'node:assert/strict'
import { ServiceError } from '../errors.ts'
import { type ParsedRule, PolicySyntaxError, parseRule, type Question } from './policy-text.ts'

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

/** Rules that upstream builds the others of, for policy files that name or change them. */
const BASE_RULES: Readonly<Record<string, string>> = {
  context_is_admin: 'role:admin',
  admin_api: 'is_admin:True or (role:admin and is_admin_project:True)',
  admin_or_owner: 'is_admin:True or (role:admin and is_admin_project:True) or project_id:%(project_id)s',
  xena_system_admin_or_project_reader: 'role:admin or (role:reader and project_id:%(project_id)s)',
  xena_system_admin_or_project_member: 'role:admin or (role:member and project_id:%(project_id)s)',
}
const BASE_OF: Record<Check, string> = {
  reader: 'xena_system_admin_or_project_reader',
  member: 'xena_system_admin_or_project_member',
  admin: 'admin_api',
}

export interface Caller {
  userId: string
  projectId: string
  roles: readonly string[]
}

/** The rules of one API: the defaults, and what a policy file says instead. */
export interface Policy {
  /** What is likely a mistake in the file but does no harm. */
  readonly warnings: readonly string[]
  isAllowed(rule: string, caller: Caller, target: { projectId: string }): boolean
  /** Throws a `refusal` unless the rule lets the caller act on something of that project. */
  authorize(rule: string, caller: Caller, target: { projectId: string }): void
  /** Who acts in every project, and sees what only operators see. */
  isAdmin(caller: Caller): boolean
}

/**
 * @param file rules by name, as a policy file has them; see `policy-text.ts`. Throws PolicySyntaxError, with the name of the rule, for
 *   one that cannot be read, or that rests on itself or on none.
 */
export function createPolicy(file: Readonly<Record<string, unknown>> = {}): Policy {
  const changed = new Map(Object.entries(file).map(([name, value]) => [name, parsed(name, value)]))
  const named = new Map(Object.entries(BASE_RULES).map(([name, text]) => [name, parseRule(text)]))
  for (const [name, rule] of changed) named.set(name, rule)
  checkUses(named)

  function holds(name: string, question: Omit<Question, 'rule'>): boolean {
    const rule = named.get(name)
    if (rule !== undefined) return rule.check({ ...question, rule: (other) => holds(other, question) })
    return isRule(name) && holds(BASE_OF[RULES[name]], question)
  }

  function isAdmin(caller: Caller): boolean {
    if (!changed.has('context_is_admin')) return caller.roles.includes('admin')
    return holds('context_is_admin', questionOf(caller, caller, false))
  }

  function isAllowed(rule: string, caller: Caller, target: { projectId: string }): boolean {
    assert(isRule(rule), `no such policy rule: ${rule}`)
    if (changed.size > 0) return holds(rule, questionOf(caller, target, isAdmin(caller)))
    if (caller.roles.includes('admin')) return true
    return caller.projectId === target.projectId && ROLES[RULES[rule]].some((role) => caller.roles.includes(role))
  }

  const used = new Set([...changed.values()].flatMap(({ uses }) => uses))
  const unknown = [...changed.keys()].filter(
    (name) => !isRule(name) && !Object.hasOwn(BASE_RULES, name) && !used.has(name),
  )
  return {
    warnings: unknown.map((name) => `the policy file has a rule ${name}, which nothing asks for`),
    isAllowed,
    isAdmin,
    authorize: (rule, caller, target) => {
      if (!isAllowed(rule, caller, target)) throw refusal(rule as Rule)
    },
  }
}

function parsed(name: string, value: unknown): ParsedRule {
  try {
    return parseRule(value)
  } catch (error) {
    if (error instanceof PolicySyntaxError) throw new PolicySyntaxError(`${name}: ${error.message}`)
    throw error
  }
}

/** Every rule that is named is there, and none rests on itself. */
function checkUses(rules: ReadonlyMap<string, ParsedRule>): void {
  const checked = new Set<string>()
  const visit = (name: string, path: readonly string[]): void => {
    if (path.includes(name)) throw new PolicySyntaxError(`${name} rests on itself: ${[...path, name].join(', ')}`)
    if (checked.has(name)) return
    const rule = rules.get(name)
    if (rule === undefined && !isRule(name)) throw new PolicySyntaxError(`${path.at(-1)}: there is no rule ${name}`)
    for (const other of rule?.uses ?? []) visit(other, [...path, name])
    checked.add(name)
  }
  for (const name of rules.keys()) visit(name, [])
}

function questionOf(caller: Caller, target: { projectId: string }, isAdmin: boolean): Omit<Question, 'rule'> {
  return {
    credentials: {
      user_id: caller.userId,
      project_id: caller.projectId,
      roles: caller.roles,
      is_admin: isAdmin,
      is_admin_project: true,
      system_scope: null,
      domain_id: null,
    },
    target: { project_id: target.projectId },
  }
}

/** Upstream does not say which rule these are. */
const UNNAMED: readonly Rule[] = [
  'volume_extension:default_set_or_update',
  'volume_extension:default_get',
  'volume_extension:default_get_all',
  'volume_extension:default_unset',
]

function refusal(rule: Rule): ServiceError {
  return UNNAMED.includes(rule)
    ? new ServiceError('OperationNotAuthorized')
    : new ServiceError('PolicyNotAuthorized', { action: rule })
}

function isRule(rule: string): rule is Rule {
  return Object.hasOwn(RULES, rule)
}
