import { describe, expect, test } from 'vitest'
import { createPolicy, RULES } from '../../src/api/policy.ts'
import { ROUTES } from '../../src/api/v3/index.ts'
import { createHarness } from './harness.ts'

const own = { projectId: 'p1' }
const foreign = { projectId: 'p2' }
const caller = (...roles: string[]) => ({ userId: 'u1', projectId: 'p1', roles })
const { isAllowed, authorize } = createPolicy()

describe('checks', () => {
  test.each([
    ['volume:get', ['reader'], own, true],
    ['volume:get', ['member'], own, true],
    ['volume:get', ['reader'], foreign, false],
    ['volume:get', ['admin'], foreign, true],
    ['volume:get', [], own, false],
    ['volume:get', ['service'], own, false],
    ['volume:create', ['reader'], own, false],
    ['volume:create', ['member'], own, true],
    ['volume:create', ['member'], foreign, false],
    ['volume:force_delete', ['member'], own, false],
    ['volume:force_delete', ['admin'], foreign, true],
  ])('%s for %j on %j: %s', (rule, roles, target, allowed) => {
    expect(isAllowed(rule, caller(...roles), target)).toBe(allowed)
  })

  test('authorize names the rule', () => {
    expect(() => authorize('volume:delete', caller('reader'), own)).toThrow(
      "Policy doesn't allow volume:delete to be performed.",
    )
  })

  test('an unknown rule is a mistake of ours, not a permission', () => {
    expect(() => isAllowed('volume:nonsense', caller('admin'), own)).toThrow('no such policy rule')
    expect(() => isAllowed('toString', caller('admin'), own)).toThrow('no such policy rule')
  })
})

describe('a policy file', () => {
  const allows = (rule: unknown, roles: string[], target = own) =>
    createPolicy({ 'volume:delete': rule }).isAllowed('volume:delete', caller(...roles), target)

  test.each<[unknown, string[], boolean]>([
    ['role:operator', ['operator'], true],
    ['role:Operator', ['operator'], true],
    ['role:operator', ['admin'], false],
    ['', [], true],
    ['@', [], true],
    ['!', ['admin'], false],
    ['not role:reader', ['member'], true],
    ['role:a or role:b and role:c', ['a'], true],
    ['role:a or role:b and role:c', ['b'], false],
    ['(role:a or role:b) and role:c', ['a'], false],
    ['(role:a or role:b) and not (role:c or role:d)', ['b'], true],
    ['is_admin:True', ['admin'], true],
    ['is_admin:False', ['admin'], false],
    ['project_id:%(project_id)s', [], true],
    ['user_id:u1', [], true],
    ['user_id:%(user_id)s', [], false], // nothing is known of whose it is but its project
    ["'p1':%(project_id)s", [], true],
    ['"p2":%(project_id)s', [], false],
    ['True:True', [], true],
    ['system_scope:None', [], true],
    ['nonsense:1', [], false],
    ['roles:member', ['reader', 'member'], true],
    ['rule:admin_or_owner', [], true],
    ['rule:volume:get', ['reader'], true],
    ['rule:volume:get', [], false],
    [[], [], true],
    [['role:a', 'role:b'], ['b'], true],
    [[['role:a', 'role:b']], ['b'], false],
    [[['role:a', 'role:b'], ['role:c']], ['c'], true],
  ])('%j lets %j: %s', (rule, roles, allowed) => {
    expect(allows(rule, roles)).toBe(allowed)
  })

  test('leaves the rules that it does not name as they are', () => {
    const policy = createPolicy({ 'volume:delete': '!' })
    expect(policy.isAllowed('volume:update', caller('member'), own)).toBe(true)
    expect(policy.isAllowed('volume:update', caller('reader'), own)).toBe(false)
    expect(policy.isAllowed('volume:update', caller('admin'), foreign)).toBe(true)
    expect(policy.isAllowed('volume:update', caller('member'), foreign)).toBe(false)
  })

  test('changes all rules that rest on the one that it names', () => {
    const policy = createPolicy({ xena_system_admin_or_project_member: 'role:writer' })
    expect(policy.isAllowed('volume:delete', caller('writer'), own)).toBe(true)
    expect(policy.isAllowed('volume:delete', caller('member'), own)).toBe(false)
    expect(policy.isAllowed('volume:get', caller('reader'), own)).toBe(true)
  })

  test('says who is an administrator', () => {
    const policy = createPolicy({ context_is_admin: 'role:admin or role:operator' })
    expect(policy.isAdmin(caller('operator'))).toBe(true)
    expect(policy.isAllowed('volume:force_delete', caller('operator'), foreign)).toBe(true)
    expect(createPolicy({ context_is_admin: '!' }).isAdmin(caller('admin'))).toBe(false)
  })

  test('may have rules of its own, and warns of those that nothing asks for', () => {
    const policy = createPolicy({ janitor: 'role:janitor', 'volume:delete': 'rule:janitor', 'volume:delet': '@' })
    expect(policy.isAllowed('volume:delete', caller('janitor'), own)).toBe(true)
    expect(policy.warnings).toEqual(['the policy file has a rule volume:delet, which nothing asks for'])
  })

  test.each<[Record<string, unknown>, string]>([
    [{ 'volume:get': 'role:a role:b' }, 'volume:get: `role:b` stands where'],
    [{ 'volume:get': 'role:a and' }, 'volume:get: a check is missing before its end'],
    [{ 'volume:get': '(role:a' }, 'volume:get: a parenthesis is not closed'],
    [{ 'volume:get': 'role:a)' }, 'volume:get: `)` stands where'],
    [{ 'volume:get': 'or role:a' }, 'volume:get: a check is missing before `or`'],
    [{ 'volume:get': 'admin' }, 'volume:get: `admin` is no check'],
    [{ 'volume:get': "'unclosed:1" }, "volume:get: `'unclosed:1` cannot be read"],
    [{ 'volume:get': 'http://127.0.0.1/check' }, 'no other server is asked here'],
    [{ 'volume:get': 7 }, 'volume:get: it is neither text nor a list'],
    [{ 'volume:get': 'rule:nobody' }, 'volume:get: there is no rule nobody'],
    [{ a: 'rule:b', b: 'not rule:a' }, 'a rests on itself: a, b, a'],
  ])('%j is refused', (file, message) => {
    expect(() => createPolicy(file)).toThrow(message)
  })

  test('rules requests', async () => {
    const api = await createHarness({ policy: createPolicy({ 'volume:create': 'role:admin' }) })
    const body = { volume: { size: 1 } }
    expect((await api.ask('POST', '/v3/volumes', { roles: 'member', body })).status).toBe(403)
    expect((await api.ask('POST', '/v3/volumes', { roles: 'admin', body })).status).toBe(202)
    await api.close()
  })
})

test('every route of an object or a list names its rule; the few that do not are named here', () => {
  const free = ROUTES.filter(({ policy }) => policy === null).map(({ operation }) => operation)
  expect(free).toEqual([
    'list_attachments',
    'list_attachments_detail',
    'show_attachment',
    'list_resource_filters',
    'list_group_types', // upstream has no rule for who may see them
    'show_default_group_type',
    'show_group_type',
    'show_limits',
    'list_availability_zones',
    'list_extensions',
    'show_extension',
  ])
  for (const { policy } of ROUTES) if (policy !== null) expect(RULES).toHaveProperty([policy])
})
