// KafkaJS. Its consumer only exists within a group, so records are read through the broker connection
// below it: the same Fetch request and decoder.
'use strict'

const assert = require('node:assert')
const { fork } = require('node:child_process')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')

const COUNT = 100
const SPLIT = 40
const BASE_TIME = Date.now() - 3600000
const ISOLATION_READ_UNCOMMITTED = 0

const kafka = new Kafka({ clientId: 'tests', brokers: [process.argv[2]], logLevel: logLevel.ERROR })

function message(i) {
  return {
    key: i === 3 ? null : `key-${i}`,
    value: i === 5 ? null : `value-${i} ${'x'.repeat(i)}`,
    timestamp: String(BASE_TIME + 1000 * i),
    headers: { header: `h${i}` },
    partition: 0,
  }
}

const EXPECTED = Array.from({ length: COUNT }, (_, i) => {
  const { key, value, timestamp, headers } = message(i)
  return { offset: String(i), key, value, timestamp, header: headers.header }
})

async function until(condition, seconds = 30) {
  const deadline = Date.now() + 1000 * seconds
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`still not so after ${seconds} s`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

async function consume(topic, start) {
  const createCluster = Object.getOwnPropertySymbols(kafka).find(symbol =>
    String(symbol).includes('createCluster')
  )
  const cluster = kafka[createCluster]({})
  await cluster.connect()
  try {
    await cluster.addTargetTopic(topic)
    const [leader] = Object.keys(cluster.findLeaderForPartitions(topic, [0]))
    const broker = await cluster.findBroker({ nodeId: leader })
    const found = []
    for (let offset = start; offset < COUNT; ) {
      const { responses } = await broker.fetch({
        replicaId: -1,
        isolationLevel: ISOLATION_READ_UNCOMMITTED,
        maxWaitTime: 1000,
        topics: [{ topic, partitions: [{ partition: 0, fetchOffset: offset, maxBytes: 1048576 }] }],
      })
      const { messages } = responses[0].partitions[0]
      assert.notStrictEqual(messages.length, 0, `nothing more after ${offset}`)
      for (const { offset: at, key, value, timestamp, headers } of messages) {
        // A fetch answers with whole batches.
        if (Number(at) < start) continue
        found.push({
          offset: at,
          key: key && key.toString(),
          value: value && value.toString(),
          timestamp,
          header: headers.header.toString(),
        })
      }
      offset = Number(messages[messages.length - 1].offset) + 1
    }
    return found
  } finally {
    await cluster.disconnect()
  }
}

async function produceAndConsume(topic, compression, settings) {
  const admin = kafka.admin()
  await admin.connect()
  const producer = kafka.producer({ allowAutoTopicCreation: true, ...settings })
  await producer.connect()
  try {
    for (let from = 0; from < COUNT; from += 25) {
      const messages = Array.from({ length: 25 }, (_, i) => message(from + i))
      const [{ errorCode, baseOffset }] = await producer.send({ topic, acks: -1, compression, messages })
      assert.deepStrictEqual([errorCode, baseOffset], [0, String(from)])
    }
    assert.deepStrictEqual(await consume(topic, 0), EXPECTED)
    assert.deepStrictEqual(await consume(topic, SPLIT), EXPECTED.slice(SPLIT))
    const [{ offset }] = await admin.fetchTopicOffsetsByTimestamp(topic, BASE_TIME + 1000 * SPLIT)
    assert.strictEqual(offset, String(SPLIT))
    assert.deepStrictEqual(await consume(topic, Number(offset)), EXPECTED.slice(SPLIT))
  } finally {
    await producer.disconnect()
    await admin.disconnect()
  }
}

async function administrate() {
  const topic = 'kafkajs-admin'
  const admin = kafka.admin()
  await admin.connect()
  const producer = kafka.producer()
  await producer.connect()
  try {
    const configEntries = [{ name: 'retention.ms', value: '7200000' }]
    await admin.createTopics({ topics: [{ topic, numPartitions: 2, replicationFactor: 1, configEntries }] })
    await until(async () => (await admin.listTopics()).includes(topic))

    const type = ConfigResourceTypes.TOPIC
    const retention = async () => {
      const { resources } = await admin.describeConfigs({ resources: [{ type, name: topic }] })
      return resources[0].configEntries.find(({ configName }) => configName === 'retention.ms').configValue
    }
    await until(async () => (await retention()) === '7200000')
    configEntries[0].value = '3600000'
    await admin.alterConfigs({ resources: [{ type, name: topic, configEntries }] })
    await until(async () => (await retention()) === '3600000')

    await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] })
    const metadata = () => admin.fetchTopicMetadata({ topics: [topic] })
    await until(async () => (await metadata()).topics[0].partitions.length === 4)

    const messages = Array.from({ length: 10 }, () => ({ value: 'value', partition: 3 }))
    await producer.send({ topic, messages })
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 3, offset: '7' }] })
    const { low, high } = (await admin.fetchTopicOffsets(topic)).find(({ partition }) => partition === 3)
    assert.deepStrictEqual([low, high], ['7', '10'])

    await admin.deleteTopics({ topics: [topic] })
    await until(async () => !(await admin.listTopics()).includes(topic))
  } finally {
    await producer.disconnect()
    await admin.disconnect()
  }
}

async function groupMember(topic, groupId, eachMessage) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 500, rebalanceTimeout: 10000 })
  const state = { partitions: 0 }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    state.partitions = (payload.memberAssignment[topic] || []).length
  })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({ autoCommitThreshold: 1, eachMessage })
  return { consumer, state }
}

async function shareInGroup() {
  const topic = 'kafkajs-group'
  const groupId = 'kafkajs'
  const admin = kafka.admin()
  await admin.connect()
  const producer = kafka.producer()
  await producer.connect()
  const produce = async (from, to) => {
    const messages = Array.from({ length: to - from }, (_, i) => ({ value: String(from + i), partition: (from + i) % 4 }))
    await producer.send({ topic, messages })
  }
  const found = new Set()
  const eachMessage = async ({ message }) => {
    found.add(Number(message.value.toString()))
  }
  let other
  try {
    await admin.createTopics({ topics: [{ topic, numPartitions: 4, replicationFactor: 1 }] })
    await produce(0, 40)
    const first = await groupMember(topic, groupId, eachMessage)
    await until(async () => first.state.partitions === 4)
    other = fork(__filename, [process.argv[2], topic, groupId])
    await until(async () => first.state.partitions === 2)
    other.kill('SIGKILL')
    await until(async () => first.state.partitions === 4)
    await until(async () => found.size === 40)
    await first.consumer.disconnect()

    found.clear()
    await produce(40, 44)
    const second = await groupMember(topic, groupId, eachMessage)
    await until(async () => found.size === 4)
    assert.deepStrictEqual([...found].sort(), [40, 41, 42, 43])
    await second.consumer.disconnect()
    const { groups } = await admin.listGroups()
    assert.ok(groups.some(group => group.groupId === groupId && group.protocolType === 'consumer'))
    await admin.deleteGroups([groupId])
  } finally {
    if (other) other.kill('SIGKILL')
    await producer.disconnect()
    await admin.disconnect()
  }
}

async function main() {
  if (process.argv.length > 3) {
    await groupMember(process.argv[3], process.argv[4], async () => {})
    return
  }
  let failed = false
  const check = async (name, step) => {
    try {
      await step()
      console.log('PASS', name)
    } catch (error) {
      failed = true
      console.error(error)
      console.log('FAIL', name, error.message)
    }
  }
  const { None, GZIP, Snappy } = CompressionTypes
  await check('none', () => produceAndConsume('kafkajs-none', None))
  await check('gzip', () => produceAndConsume('kafkajs-gzip', GZIP))
  await check('snappy', () => produceAndConsume('kafkajs-snappy', Snappy))
  await check('idempotent', () => produceAndConsume('kafkajs-idempotent', None, { idempotent: true }))
  await check('admin', administrate)
  await check('group', shareInGroup)
  process.exit(failed ? 1 : 0)
}

main()
