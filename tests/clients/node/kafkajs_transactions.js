// Transactions with KafkaJS: aborts, consume-process-produce, and a producer that has been replaced.
'use strict'

const assert = require('node:assert')
const { Kafka, logLevel } = require('kafkajs')

const [INPUT, OUTPUT, GROUP] = ['kafkajs-in', 'kafkajs-out', 'kafkajs-transactions']

const kafka = new Kafka({ clientId: 'tests', brokers: [process.argv[2]], logLevel: logLevel.NOTHING })

async function until(condition, seconds = 30) {
  const deadline = Date.now() + 1000 * seconds
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`still not so after ${seconds} s`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

const range = (from, to) => Array.from({ length: to - from }, (_, i) => from + i)

async function transactional(transactionalId) {
  const producer = kafka.producer({ transactionalId, maxInFlightRequests: 1, idempotent: true, retry: { retries: 3 } })
  await producer.connect()
  return producer
}

let readers = 0

/** The values of the output up to the one that a plain producer adds as the last. */
async function read(readUncommitted) {
  const end = 1000000 + readers++
  const plain = kafka.producer()
  await plain.connect()
  await plain.send({ topic: OUTPUT, messages: [{ value: String(end) }] })
  await plain.disconnect()
  const consumer = kafka.consumer({ groupId: `kafkajs-reader-${readers}`, readUncommitted })
  const found = []
  await consumer.connect()
  await consumer.subscribe({ topic: OUTPUT, fromBeginning: true })
  await consumer.run({ eachMessage: async ({ message }) => found.push(Number(message.value.toString())) })
  await until(() => found.includes(end))
  await consumer.disconnect()
  return found.filter(value => value < 1000000)
}

async function abort() {
  const producer = await transactional('kafkajs-a')
  const transaction = await producer.transaction()
  await transaction.send({ topic: OUTPUT, messages: range(0, 10).map(value => ({ value: String(value) })) })
  assert.deepStrictEqual(await read(true), range(0, 10))
  await transaction.abort()
  assert.deepStrictEqual(await read(false), [])
  assert.deepStrictEqual(await read(true), range(0, 10))
  await producer.disconnect()
}

async function consumeProcessProduce() {
  const plain = kafka.producer()
  await plain.connect()
  await plain.send({ topic: INPUT, messages: range(0, 30).map(value => ({ value: String(value) })) })
  await plain.disconnect()
  const producer = await transactional('kafkajs-b')
  const consumer = kafka.consumer({ groupId: GROUP })
  let rounds = 0
  let done = 0
  await consumer.connect()
  await consumer.subscribe({ topic: INPUT, fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch, resolveOffset, isRunning, isStale }) => {
      const { messages } = batch
      for (let from = 0; from < messages.length && isRunning() && !isStale(); ) {
        const some = messages.slice(from, from + 5)
        const transaction = await producer.transaction()
        await transaction.send({
          topic: OUTPUT,
          messages: some.map(({ value }) => ({ value: String(1000 + Number(value.toString())) })),
        })
        const offset = String(Number(some[some.length - 1].offset) + 1)
        await transaction.sendOffsets({
          consumerGroupId: GROUP,
          topics: [{ topic: INPUT, partitions: [{ partition: 0, offset }] }],
        })
        if (++rounds % 3 === 0) {
          await transaction.abort()
        } else {
          await transaction.commit()
          resolveOffset(some[some.length - 1].offset)
          done += some.length
          from += some.length
        }
      }
    },
  })
  await until(() => done >= 30)
  await consumer.disconnect()
  await producer.disconnect()
  assert.deepStrictEqual(await read(false), range(1000, 1030))
  const admin = kafka.admin()
  await admin.connect()
  // The transaction is committed before its offsets are seen.
  await until(async () => {
    const [{ partitions }] = await admin.fetchOffsets({ groupId: GROUP, topics: [INPUT] })
    return partitions[0].offset === '30'
  })
  await admin.disconnect()
}

async function fence() {
  const zombie = await transactional('kafkajs-c')
  const lost = await zombie.transaction()
  await lost.send({ topic: OUTPUT, messages: [{ value: '2000' }] })
  const producer = await transactional('kafkajs-c')
  const transaction = await producer.transaction()
  await assert.rejects(() => lost.commit(), /epoch|fenced|newer/i)
  await transaction.send({ topic: OUTPUT, messages: [{ value: '2001' }] })
  await transaction.commit()
  assert.deepStrictEqual((await read(false)).slice(30), [2001])
  await zombie.disconnect()
  await producer.disconnect()
}

async function main() {
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic: INPUT, numPartitions: 1 }, { topic: OUTPUT, numPartitions: 1 }] })
  await admin.disconnect()
  let failed = false
  for (const [name, step] of [
    ['abort', abort],
    ['consume process produce', consumeProcessProduce],
    ['fence', fence],
  ]) {
    try {
      await step()
      console.log('PASS', name)
    } catch (error) {
      failed = true
      console.error(error)
      console.log('FAIL', name, error.message)
    }
  }
  process.exit(failed ? 1 : 0)
}

main()
